// Package stack has the names by which a deployed stack describes itself: the stack outputs, and the environment
// variables of the worker. The Pulumi program writes them, the CLI and the worker read them; they exist only here.
//
// It is a leaf: it imports the standard library alone.
package stack

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Environment variables of the worker: all of its configuration.
const (
	EnvBucket     = "OUTPUT_BUCKET"            // required
	EnvGenerators = "GENERATORS_PATH"          // default DefaultGenerators
	EnvQueueURL   = "SQS_QUEUE_URL"            // needed for continuations and retries of SQS messages
	EnvDLQURL     = "SQS_DLQ_URL"              // needed for permanent failures of SQS messages
	EnvRegion     = "AWS_REGION"               // default DefaultRegion; Lambda sets it itself
	EnvFunction   = "AWS_LAMBDA_FUNCTION_NAME" // Lambda sets it; a dimension of the worker's metrics
	// set by the process that runs the worker: it ends when its standard input does, and at a byte hands back its work
	EnvAlive = "END_WITH_STDIN"
	// set by ops worker: generators have no network, and tasks of generators that it lacks are left to other workers
	EnvOwnMachine = "OWN_MACHINE"
	EnvImage      = "IMAGE_URI" // repository@digest of the image the worker runs in; receipts record it
	// files that every sample must have beyond those of the contract, separated by commas
	EnvRequiredFiles = "REQUIRED_FILES"
	// tests on the local stack: shortens the waits before a retry, from above 0 to 1, the default
	EnvRetryDelays = "RETRY_DELAY_FACTOR"

	DefaultGenerators = "/opt/generators"
	DefaultRegion     = "us-east-2"
)

// Local is the name of the local stack.
const Local = "local"

// Alias is that of the function's version that works on the queue.
const Alias = "live"

// Names of the outputs of a deployed stack: those of Outputs.
const (
	OutQueueURL             = "queueUrl"
	OutDLQURL               = "dlqUrl"
	OutQueueARN             = "queueArn"
	OutDLQARN               = "dlqArn"
	OutBucketName           = "bucketName"
	OutFunctionName         = "functionName"
	OutFunctionARN          = "functionArn"
	OutImageURI             = "imageUri"
	OutRepositoryURL        = "repositoryUrl"
	OutLogGroupName         = "logGroupName"
	OutEventSourceMappingID = "eventSourceMappingId"
	OutDashboardURL         = "dashboardUrl"
	OutRegion               = "region"
	OutAccountID            = "accountId"
	OutArchitecture         = "architecture"
	OutMemoryMB             = "memoryMB"
	OutDataPrefix           = "dataPrefix"
	OutGenerators           = "generators"
	OutLocks                = "locks"
	OutRequiredFiles        = "requiredFiles"
	OutFleetWorkers         = "fleetWorkers"
	OutRetainData           = "retainData"
)

// Outputs are the stack outputs.
type Outputs struct {
	QueueURL             string `json:"queueUrl"`
	DLQURL               string `json:"dlqUrl"`
	QueueARN             string `json:"queueArn"`
	DLQARN               string `json:"dlqArn"`
	BucketName           string `json:"bucketName"`
	FunctionName         string `json:"functionName"`
	FunctionARN          string `json:"functionArn"` // of its alias
	ImageURI             string `json:"imageUri"`    // repository@digest
	RepositoryURL        string `json:"repositoryUrl"`
	LogGroupName         string `json:"logGroupName"`
	EventSourceMappingID string `json:"eventSourceMappingId"` // "" if the function takes no tasks
	DashboardURL         string `json:"dashboardUrl"`
	Region               string `json:"region"`
	AccountID            string `json:"accountId"`
	Architecture         string `json:"architecture"` // of the function: x86_64 or arm64
	MemoryMB             int    `json:"memoryMB"`
	DataPrefix           string `json:"dataPrefix"`
	// in the image: name -> commit, "" where it is unknown
	Generators map[string]string `json:"generators,omitzero"`
	Locks      map[string]string `json:"locks,omitzero"` // of them: name -> hash of the lock, for those that have one
	// that every sample must have beyond those of the contract
	RequiredFiles []string `json:"requiredFiles,omitzero"`
	FleetWorkers  int      `json:"fleetWorkers,omitzero"` // containers beside or instead of the function, at most
	// nil and true: destroying the stack leaves its bucket and images
	RetainData *bool `json:"retainData,omitzero"`

	Endpoints
}

// Endpoints are outputs of the local stack only.
type Endpoints struct {
	SQSEndpoint     string `json:"sqsEndpoint,omitempty"`
	S3Endpoint      string `json:"s3Endpoint,omitempty"`
	LambdaEndpoint  string `json:"lambdaEndpoint,omitempty"`
	AccessKeyID     string `json:"accessKeyId,omitempty"`
	SecretAccessKey string `json:"secretAccessKey,omitempty"`
	Workers         int    `json:"workers,omitempty"`
}

// Names returns the names of all outputs of a deployed stack.
func Names() (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Outputs]()) {
		if len(f.Index) == 1 && !f.Anonymous {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}

// Parse reads the outputs from `pulumi stack output --json`. What the CLI cannot do without must be there: a stack that
// was never deployed answers {} with exit status 0.
func Parse(text []byte) (Outputs, error) {
	var o Outputs
	if err := json.Unmarshal(text, &o); err != nil {
		return Outputs{}, fmt.Errorf("stack outputs are not the JSON of this project: %w", err)
	}
	var missing []string
	for _, required := range []struct{ name, value string }{
		{OutQueueURL, o.QueueURL}, {OutDLQURL, o.DLQURL}, {OutBucketName, o.BucketName}, {OutRegion, o.Region},
	} {
		if required.value == "" {
			missing = append(missing, required.name)
		}
	}
	if len(missing) > 0 {
		return Outputs{}, fmt.Errorf("stack outputs lack %s: was the stack deployed?", strings.Join(missing, ", "))
	}
	return o, nil
}
