package target

import (
	"cmp"
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
	project, err := filepath.Abs(f.Project)
	f.LocalDir = cmp.Or(f.LocalDir, filepath.Join(project, ".local"))
	f.Generators = cmp.Or(f.Generators, filepath.Join(project, generator.DefaultRoot))
	return err
}

// projectFlag is the flag for hints that leads to the same project.
func (f *Flags) projectFlag() string {
	if f.Project == "" || os.Getenv("OPS_PROJECT") != "" {
		return ""
	}
	return " --project " + f.Project
}
