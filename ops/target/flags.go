package target

import (
	"os"
	"path/filepath"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Flags are the stack that a command works on, and folders of this machine.
type Flags struct {
	Stack      string `help:"Stack to work on: a Pulumi stack, or ${local_stack} for the one on this machine. Default: the selected Pulumi stack." env:"OPS_STACK" placeholder:"NAME"`
	LocalDir   string `help:"Where the local stack and submits keep everything. Default: .local in the project." env:"OPS_LOCAL_DIR" type:"path" placeholder:"DIR"`
	Project    string `help:"Folder of the Pulumi project, when ops is run elsewhere: Pulumi is asked there, and its generators and .local are used." short:"C" env:"OPS_PROJECT" type:"existingdir" placeholder:"DIR"`
	Outputs    string `help:"Read the stack outputs from a file saved with 'pulumi stack output --json', on machines without Pulumi." type:"existingfile" placeholder:"FILE"`
	Generators string `help:"Folder with the generators. Default: generators in the project." env:"OPS_GENERATORS" type:"path" placeholder:"DIR" name:"generators-dir"`
}

// AfterApply fills in the folders below the project's that no flag names.
func (f *Flags) AfterApply() error {
	for _, d := range []struct {
		dir  *string
		name string
	}{{&f.LocalDir, ".local"}, {&f.Generators, generator.DefaultRoot}} {
		if *d.dir != "" {
			continue
		}
		var err error
		if *d.dir, err = filepath.Abs(filepath.Join(f.Project, d.name)); err != nil {
			return err
		}
	}
	return nil
}

// projectFlag is the flag for hints that leads to the same project.
func (f *Flags) projectFlag() string {
	if f.Project == "" || os.Getenv("OPS_PROJECT") != "" {
		return ""
	}
	return " --project " + f.Project
}
