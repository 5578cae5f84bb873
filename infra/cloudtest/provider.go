package cloudtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/blang/semver"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// resourceType is all that the provider servers know of one type of resource.
// To add one, write its functions and put it into the table of its service.
type resourceType struct {
	schema

	name     string   // input that is given a generated name where the program sets none; "" if there is none
	nameMax  int      // characters of such a name
	fixed    []string // inputs that the service cannot change: another value makes a new resource
	volatile []string // outputs that an update changes
	beside   bool     // a new one can be made before the one that it takes the place of is gone

	// prepare may add to inputs that have passed the schema; nil does nothing.
	prepare func(in resource.PropertyMap) error
	create  func(ctx context.Context, c *Cloud, in props) (id string, err error)
	// read returns inputs and outputs as the service has them now, or errGone.
	read func(ctx context.Context, c *Cloud, id string, in props) (props, error)
	// update gives an existing resource other inputs; nil says that every change makes a new resource.
	update func(ctx context.Context, c *Cloud, id string, old, in props) error
	remove func(ctx context.Context, c *Cloud, id string, in props) error
}

// errGone says that a resource was removed.
var errGone = errors.New("the resource is gone")

// invokeType is a function of the provider that reads something.
type invokeType struct {
	args reflect.Type
	call func(ctx context.Context, c *Cloud, in props) (props, error)
}

// provider serves one Pulumi package to the engine.
type provider struct {
	plugin.UnimplementedProvider
	cloud     *Cloud
	pkg       tokens.Package
	version   string // of the SDK whose plugin it stands in for
	config    schema
	resources map[tokens.Type]resourceType
	invokes   map[tokens.ModuleMember]invokeType
}

func (p *provider) Pkg() tokens.Package                      { return p.pkg }
func (p *provider) Close() error                             { return nil }
func (p *provider) SignalCancellation(context.Context) error { return nil }

// Attach implements plugin.GrpcProvider: the engine passes its address.
func (p *provider) Attach(string) error { return nil }

func (p *provider) Handshake(context.Context, plugin.ProviderHandshakeRequest) (*plugin.ProviderHandshakeResponse,
	error) {
	return &plugin.ProviderHandshakeResponse{}, nil
}

func (p *provider) GetPluginInfo(context.Context) (plugin.PluginInfo, error) {
	version := semver.MustParse(p.version)
	return plugin.PluginInfo{Version: &version}, nil
}

func (p *provider) CheckConfig(_ context.Context, r plugin.CheckConfigRequest) (plugin.CheckConfigResponse, error) {
	config := maps.Clone(r.News)
	delete(config, "version") // the engine's own
	return plugin.CheckConfigResponse{Properties: r.News, Failures: p.config.check(config)}, nil
}

func (p *provider) DiffConfig(_ context.Context, r plugin.DiffConfigRequest) (plugin.DiffConfigResponse, error) {
	if r.OldInputs.DeepEquals(r.NewInputs) {
		return plugin.DiffResult{Changes: plugin.DiffNone}, nil
	}
	return plugin.DiffResult{Changes: plugin.DiffSome}, nil
}

func (p *provider) Configure(_ context.Context, r plugin.ConfigureRequest) (plugin.ConfigureResponse, error) {
	if region := r.Inputs["region"]; p.pkg == "aws" && region.IsString() && region.StringValue() != p.cloud.Region {
		return plugin.ConfigureResponse{}, fmt.Errorf("this test cloud is in %s, not in %s", p.cloud.Region,
			region.StringValue())
	}
	return plugin.ConfigureResponse{}, nil
}

func (p *provider) resourceType(t tokens.Type) (resourceType, error) {
	rt, ok := p.resources[t]
	if !ok {
		return rt, fmt.Errorf("cloudtest knows no resource type %s: add it to infra/cloudtest", t)
	}
	return rt, nil
}

// defaultsKey lists the inputs that the provider has chosen.
const defaultsKey = "__defaults"

func (p *provider) Check(_ context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.CheckResponse{}, err
	}
	in := r.News.Copy()
	if failures := rt.check(in); len(failures) > 0 {
		return plugin.CheckResponse{Failures: failures}, nil
	}
	if key := resource.PropertyKey(rt.name); key != "" && !in.HasValue(key) {
		old, chosen := r.Olds[key], r.Olds[defaultsKey]
		if chosen.IsArray() && old.IsString() {
			in[key] = old
		} else {
			name, err := resource.NewUniqueName(r.RandomSeed, r.Name+"-", 7, rt.nameMax, nil)
			if err != nil {
				return plugin.CheckResponse{Failures: []plugin.CheckFailure{{Property: key, Reason: err.Error()}}}, nil
			}
			in[key] = resource.NewStringProperty(name)
		}
		in[defaultsKey] = resource.NewArrayProperty([]resource.PropertyValue{resource.NewStringProperty(rt.name)})
		if failures := rt.check(in); len(failures) > 0 {
			return plugin.CheckResponse{Failures: failures}, nil
		}
	}
	if rt.prepare != nil {
		if err := rt.prepare(in); err != nil {
			return plugin.CheckResponse{}, err
		}
	}
	return plugin.CheckResponse{Properties: in}, nil
}

func (p *provider) Diff(_ context.Context, r plugin.DiffRequest) (plugin.DiffResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.DiffResult{}, err
	}
	result := plugin.DiffResult{Changes: plugin.DiffNone, DetailedDiff: map[string]plugin.PropertyDiff{}}
	for _, key := range changed(r.OldInputs, r.NewInputs) {
		kind := plugin.DiffUpdate
		if rt.update == nil || slices.Contains(rt.fixed, string(key)) {
			kind = plugin.DiffUpdateReplace
			result.ReplaceKeys = append(result.ReplaceKeys, key)
			// Two of one name cannot be at the same time.
			result.DeleteBeforeReplace = !rt.beside && (rt.name == "" || !r.OldInputs.HasValue(defaultsKey))
		}
		result.Changes = plugin.DiffSome
		result.ChangedKeys = append(result.ChangedKeys, key)
		result.DetailedDiff[string(key)] = plugin.PropertyDiff{Kind: kind, InputDiff: true}
	}
	return result, nil
}

// changed returns the keys whose values differ. Policies that say the same in
// other words are the same, and so are registry passwords: each login has its own.
func changed(old, in resource.PropertyMap) []resource.PropertyKey {
	d := old.Diff(in)
	if d == nil {
		return nil
	}
	var keys []resource.PropertyKey
	for key := range d.Adds {
		keys = append(keys, key)
	}
	for key := range d.Deletes {
		keys = append(keys, key)
	}
	for key, v := range d.Updates {
		if v.Old.IsString() && v.New.IsString() && sameJSON(v.Old.StringValue(), v.New.StringValue()) {
			continue
		}
		if key == "registry" && v.Object != nil && !v.Object.Changed("server") {
			continue
		}
		keys = append(keys, key)
	}
	keys = slices.DeleteFunc(keys, func(k resource.PropertyKey) bool { return k == defaultsKey })
	slices.Sort(keys)
	return keys
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func (p *provider) Create(ctx context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	if r.Preview {
		return plugin.CreateResponse{Properties: rt.expected(r.Properties, nil)}, nil
	}
	in := newProps(rt.args, r.Properties)
	id, err := rt.create(ctx, p.cloud, in)
	if err != nil {
		return plugin.CreateResponse{}, fmt.Errorf("create %s %s: %w", r.Type, r.Name, err)
	}
	out, err := p.outputs(ctx, rt, id, r.Properties)
	if err != nil {
		return plugin.CreateResponse{}, fmt.Errorf("read the new %s %s: %w", r.Type, r.Name, err)
	}
	return plugin.CreateResponse{ID: resource.ID(id), Properties: out, Status: resource.StatusOK}, nil
}

func (p *provider) Update(ctx context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	if r.Preview {
		return plugin.UpdateResponse{Properties: rt.expected(r.NewInputs, r.OldOutputs)}, nil
	}
	if err := rt.update(ctx, p.cloud, string(r.ID), newProps(rt.args, r.OldInputs),
		newProps(rt.args, r.NewInputs)); err != nil {
		return plugin.UpdateResponse{}, fmt.Errorf("update %s %s: %w", r.Type, r.Name, err)
	}
	out, err := p.outputs(ctx, rt, string(r.ID), r.NewInputs)
	if err != nil {
		return plugin.UpdateResponse{}, fmt.Errorf("read the updated %s %s: %w", r.Type, r.Name, err)
	}
	return plugin.UpdateResponse{Properties: out, Status: resource.StatusOK}, nil
}

func (p *provider) Delete(ctx context.Context, r plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.DeleteResponse{}, err
	}
	if err := rt.remove(ctx, p.cloud, string(r.ID), newProps(rt.args, r.Inputs)); err != nil && !errors.Is(err, errGone) {
		return plugin.DeleteResponse{}, fmt.Errorf("delete %s %s: %w", r.Type, r.Name, err)
	}
	return plugin.DeleteResponse{Status: resource.StatusOK}, nil
}

// Read is what refresh and imports call: inputs that were changed behind Pulumi's
// back come back as they are now.
func (p *provider) Read(ctx context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	rt, err := p.resourceType(r.Type)
	if err != nil {
		return plugin.ReadResponse{}, err
	}
	out, err := p.outputs(ctx, rt, string(r.ID), r.Inputs)
	if errors.Is(err, errGone) {
		return plugin.ReadResponse{}, nil
	}
	if err != nil {
		return plugin.ReadResponse{}, fmt.Errorf("read %s %s: %w", r.Type, r.Name, err)
	}
	in := r.Inputs.Copy()
	if len(in) == 0 { // an import: all inputs that the service knows
		known := fields(rt.args)
		for key, v := range out {
			if _, ok := known[string(key)]; ok {
				in[key] = v
			}
		}
	}
	for key := range in {
		if v, ok := out[key]; ok {
			in[key] = v
		}
	}
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: r.ID, Inputs: in, Outputs: out},
		Status: resource.StatusOK}, nil
}

// outputs are the inputs, and over them what the service returns.
func (p *provider) outputs(ctx context.Context, rt resourceType, id string,
	in resource.PropertyMap) (resource.PropertyMap, error) {
	now, err := rt.read(ctx, p.cloud, id, newProps(rt.args, in))
	if err != nil {
		return nil, err
	}
	out := in.Copy()
	delete(out, defaultsKey)
	known := fields(rt.state)
	for key, v := range now.values {
		if _, ok := known[key]; !ok {
			return nil, fmt.Errorf("cloudtest itself is wrong: %s has no output %s", rt.state, key)
		}
		value := resource.NewPropertyValue(v)
		if old := out[resource.PropertyKey(key)]; old.IsString() && value.IsString() &&
			sameJSON(old.StringValue(), value.StringValue()) {
			continue
		}
		out[resource.PropertyKey(key)] = value
	}
	return out, nil
}

// expected is a resource in a preview: everything but the inputs is
// unknown if it is new; if it is not, only what an update changes.
func (rt *resourceType) expected(in, old resource.PropertyMap) resource.PropertyMap {
	out := in.Copy()
	delete(out, defaultsKey)
	for name := range fields(rt.state) {
		key := resource.PropertyKey(name)
		if out.HasValue(key) {
			continue
		}
		if v, ok := old[key]; ok && !slices.Contains(rt.volatile, name) {
			out[key] = v
		} else if old == nil || ok {
			out[key] = resource.MakeComputed(resource.NewStringProperty(""))
		}
	}
	return out
}

func (p *provider) Invoke(ctx context.Context, r plugin.InvokeRequest) (plugin.InvokeResponse, error) {
	f, ok := p.invokes[r.Tok]
	if !ok {
		return plugin.InvokeResponse{}, fmt.Errorf("cloudtest knows no function %s: add it to infra/cloudtest", r.Tok)
	}
	s := schema{args: f.args}
	if failures := s.check(r.Args); len(failures) > 0 {
		return plugin.InvokeResponse{Failures: failures}, nil
	}
	out, err := f.call(ctx, p.cloud, newProps(f.args, r.Args))
	if err != nil {
		return plugin.InvokeResponse{}, err
	}
	return plugin.InvokeResponse{Properties: resource.NewPropertyMapFromMap(out.values)}, nil
}
