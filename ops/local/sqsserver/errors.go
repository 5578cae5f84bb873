package sqsserver

import "net/http"

// apiError is an error as the protocol has it: a shape name, which SDKs turn
// into a type, and the code of the older protocol, which some still read.
type apiError struct {
	shape   string
	code    string // the older protocol's, where it differs
	message string
	status  int // default 400
}

func (e *apiError) Error() string { return e.shape + ": " + e.message }

var (
	errNoQueue = &apiError{shape: "QueueDoesNotExist", code: "AWS.SimpleQueueService.NonExistentQueue",
		message: "The specified queue does not exist."}
	errBadHandle = &apiError{shape: "ReceiptHandleIsInvalid",
		message: "The input receipt handle is invalid or has expired."}
	errNotInFlight = &apiError{shape: "MessageNotInflight", code: "AWS.SimpleQueueService.MessageNotInflight",
		message: "The specified message isn't in flight."}
	errEmptyBatch = &apiError{shape: "EmptyBatchRequest", code: "AWS.SimpleQueueService.EmptyBatchRequest",
		message: "There should be at least one entry in the request."}
	errLongBatch = &apiError{shape: "TooManyEntriesInBatchRequest",
		code: "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", message: "Maximum number of entries per request are 10."}
	errSameIDs = &apiError{shape: "BatchEntryIdsNotDistinct", code: "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
		message: "Two or more batch entries in the request have the same Id."}
	errBatchID = &apiError{shape: "InvalidBatchEntryId", code: "AWS.SimpleQueueService.InvalidBatchEntryId",
		message: "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."}
	errBatchSize = &apiError{shape: "BatchRequestTooLong", code: "AWS.SimpleQueueService.BatchRequestTooLong",
		message: "Batch requests cannot be longer than 1048576 bytes."}
	errPurge = &apiError{shape: "PurgeQueueInProgress", code: "AWS.SimpleQueueService.PurgeQueueInProgress",
		message: "Only one PurgeQueue operation is allowed every 60 seconds."}
	errContents = &apiError{shape: "InvalidMessageContents",
		message: "The message contains characters outside the allowed set."}
	errOldProtocol = &apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation",
		message: "This endpoint speaks the AWS JSON protocol only, which SDKs use since 2023: update the client."}
	errForeign = &apiError{shape: "AccessDenied",
		message: "This endpoint answers programs on this machine only, no web pages.", status: http.StatusForbidden}
)

func errParameter(message string) *apiError {
	return &apiError{shape: "InvalidParameterValueException", code: "InvalidParameterValue", message: message}
}

func errAttribute(name string) *apiError {
	return &apiError{shape: "InvalidAttributeName", message: "Unknown Attribute " + name + "."}
}

func errMissing(name string) *apiError {
	return &apiError{shape: "MissingParameterException", code: "MissingParameter",
		message: "The request must contain the parameter " + name + "."}
}
