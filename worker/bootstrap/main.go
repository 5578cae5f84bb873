// Command bootstrap is the worker's Lambda executable; Lambda looks for it by this name. It is configured by
// environment variables only (see worker.Config) and speaks the Lambda runtime API.
package main

import (
	"fmt"
	"os"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
)

func main() {
	if err := worker.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bootstrap:", err)
		os.Exit(1)
	}
}
