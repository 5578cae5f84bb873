package infra

import (
	"encoding/json"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

type failure struct{ error }

// must returns what was made, or ends the constructor that calls it with the error.
func must[T any](made T, err error) T {
	if err != nil {
		panic(failure{err})
	}
	return made
}

// caught makes the error that ended a constructor its result: each defers it.
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
func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return string(text)
}
