package infra

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/servicequotas"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// reader reads the values of one namespace, and gathers what is wrong with them.
type reader struct {
	ctx    *pulumi.Context
	prefix string // of the keys: the project's name and a colon
	keys   []string
	errs   []error
}

// refuse notes that a value is not what is allowed. A string is quoted, unless it is JSON.
func (r *reader) refuse(key string, value any, format string, args ...any) {
	text := fmt.Sprint(value)
	if s, ok := value.(string); ok && !json.Valid([]byte(s)) {
		text = strconv.Quote(s)
	}
	r.errs = append(r.errs, fmt.Errorf("%s%s is %s, "+format, append([]any{r.prefix, key, text}, args...)...))
}

func (r *reader) get(key string) (string, bool) {
	r.keys = append(r.keys, key)
	return r.ctx.GetConfig(r.prefix + key)
}

func (r *reader) text(key string, to *string) {
	if v, ok := r.get(key); ok {
		*to = v
	}
}

func (r *reader) integer(key string, to *int, low, high int) {
	v, ok := r.get(key)
	switch n, err := strconv.Atoi(v); {
	case !ok:
	case err != nil || n < low || n > high:
		r.refuse(key, v, "it must be an integer from %d to %d", low, high)
	default:
		*to = n
	}
}

func (r *reader) boolean(key string, to *bool) {
	switch v, ok := r.get(key); {
	case !ok:
	case v == "true" || v == "false":
		*to = v == "true"
	default:
		r.refuse(key, v, "it must be true or false")
	}
}

func (r *reader) list(key string, to *[]string) {
	v, ok := r.get(key)
	if !ok {
		return
	}
	var list []json.RawMessage
	valid := json.Unmarshal([]byte(v), &list) == nil
	*to = nil
	for _, raw := range list {
		text, ok := scalar(raw)
		valid = valid && ok
		*to = append(*to, text)
	}
	if !valid {
		r.refuse(key, v, "it must be a list of strings: pulumi config set --path '%s[0]' VALUE", key)
	}
}

// scalar is a text, or a number or truth value as Pulumi has it for a text that looks like one.
func scalar(raw json.RawMessage) (string, bool) {
	var value any
	_ = json.Unmarshal(raw, &value)
	switch s := value.(type) {
	case string:
		return s, true
	case float64, bool:
		return string(raw), true
	}
	return "", false
}

func (r *reader) table(key string, to map[string]string) {
	v, ok := r.get(key)
	if !ok {
		return
	}
	var table map[string]json.RawMessage
	if json.Unmarshal([]byte(v), &table) != nil {
		r.refuse(key, v, "it must be a table: pulumi config set --path %s.NAME VALUE", key)
		return
	}
	for name, raw := range table {
		if text, ok := scalar(raw); ok {
			to[name] = text
		} else {
			r.refuse(key+"."+name, string(raw), "it must be a string")
		}
	}
}

// unknown refuses the keys that nothing was read from: a misspelt key would silently leave the default. The SDK has no
// list of keys but the one that the CLI hands to the program.
func (r *reader) unknown() {
	text := os.Getenv(pulumi.EnvConfig)
	if text == "" {
		return
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		r.errs = append(r.errs, fmt.Errorf("read %s: %w", pulumi.EnvConfig, err))
		return
	}
	for _, full := range slices.Sorted(maps.Keys(all)) {
		key, ours := strings.CutPrefix(full, r.prefix)
		if !ours || slices.Contains(r.keys, key) {
			continue
		}
		hint := "docs/AWS.md has the table of the keys"
		if near := generator.Nearest(key, r.keys); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.refuse(key, all[full], "but there is no such key; %s", hint)
	}
}

type account struct{ id, region, partition string }

// askAccount asks AWS where the stack goes, and refuses settings that this account does not take. It registers no
// resource. Credentials that may not read Lambda's quota deploy all the same, with a note.
func askAccount(ctx *pulumi.Context, c *Config) (account, error) {
	who, err := aws.GetCallerIdentity(ctx, nil)
	if err != nil {
		return account{}, fmt.Errorf("AWS does not accept the credentials: %w", err)
	}
	region, err := aws.GetRegion(ctx, nil)
	if err != nil {
		return account{}, err
	}
	a := account{who.AccountId, region.Name, partitionOf(region.Name)}
	r := reader{ctx: ctx, prefix: ctx.Project() + ":"}
	if len(c.AllowedAccountIDs) > 0 && !slices.Contains(c.AllowedAccountIDs, a.id) {
		r.refuse("allowedAccountIds", strings.Join(c.AllowedAccountIDs, ", "),
			"but the credentials are of account %s: use another profile, or add the account", a.id)
		return a, r.errs[0]
	}
	if c.MonthlyBudgetUSD > 0 && a.partition == partitionGov {
		r.refuse("monthlyBudgetUSD", c.MonthlyBudgetUSD, "but %s has no AWS Budgets: pulumi config rm monthlyBudgetUSD",
			a.region)
	}
	code := "L-B99A9384" // concurrent executions
	quota, err := servicequotas.LookupServiceQuota(ctx,
		&servicequotas.LookupServiceQuotaArgs{ServiceCode: "lambda", QuotaCode: &code})
	if err != nil {
		if err := ctx.Log.Info("maxConcurrency is not checked, because AWS does not say how many workers the account may "+
			"have: "+err.Error(), nil); err != nil {
			return a, err
		}
	} else if err := c.checkQuota(&r, int(quota.Value)); err != nil {
		return a, err
	}
	if len(r.errs) > 0 {
		return a, r.errs[0]
	}
	return a, nil
}

// checkQuota compares the settings with how many workers the account may have in Lambda at once, if Lambda has any.
func (c *Config) checkQuota(r *reader, quota int) error {
	if c.Lambda && c.MaxConcurrency > quota {
		way := "pulumi config set size " + Starter
		if quota != newAccountConcurrency || c.Size == Starter {
			way = fmt.Sprintf("pulumi config set maxConcurrency %d", max(quota, minMappingConcurrency))
		}
		r.refuse("maxConcurrency", c.MaxConcurrency,
			"but the account may have %d workers at once: %s, or ask AWS for more (Service Quotas, Lambda, "+
				"Concurrent executions)", quota, way)
	}
	if free := max(quota-unreservedConcurrency, 0); c.Lambda && c.ReservedConcurrency > free {
		r.refuse("reservedConcurrency", c.ReservedConcurrency,
			"but the account may have %d workers at once and can reserve at most %d of them: pulumi config rm "+
				"reservedConcurrency", quota, free)
	}
	// No API answers how much memory is allowed. Accounts that are new in the one are in the other.
	if quota <= newAccountConcurrency && c.MemoryMB > newAccountMemoryMB {
		return r.ctx.Log.Warn(fmt.Sprintf(
			"the account looks new (%d workers at once), and new accounts refuse more than %d MB: should AWS "+
				"refuse the function, pulumi config set memoryMB %d", quota, newAccountMemoryMB, newAccountMemoryMB), nil)
	}
	return nil
}

// Partitions of AWS: accounts of one have nothing to do with another.
const (
	partitionAWS   = "aws"
	partitionChina = "aws-cn"
	partitionGov   = "aws-us-gov"
)

func partitionOf(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return partitionChina
	case strings.HasPrefix(region, "us-gov-"):
		return partitionGov
	}
	return partitionAWS
}

func (a account) console() string {
	switch a.partition {
	case partitionChina:
		return "console.amazonaws.cn"
	case partitionGov:
		return "console.amazonaws-us-gov.com"
	}
	return a.region + ".console.aws.amazon.com"
}
