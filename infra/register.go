package infra

import (
	"encoding/json"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

type failure struct{ error }

// must returns what was made, or ends the constructor it is called in with the error, directly or in a helper such as
// newRole. Functions that Pulumi calls later, as in ApplyT, return their errors: nobody catches theirs.
func must[T any](made T, err error) T {
	if err != nil {
		panic(failure{err})
	}
	return made
}

// caught makes the error that ended a constructor its result: each constructor defers it, also for register.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case failure:
		*err = p.error
	default:
		panic(p)
	}
}

// register registers a component of a kind and returns the option that its resources have.
func register(ctx *pulumi.Context, kind, name string, c pulumi.ComponentResource,
	opts []pulumi.ResourceOption) pulumi.ResourceOrInvokeOption {
	if err := ctx.RegisterComponentResource("vm-dataset:infra:"+kind, name, c, opts...); err != nil {
		panic(failure{err})
	}
	return pulumi.Parent(c)
}

// marshal writes a document that AWS takes as JSON.
func marshal(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}
