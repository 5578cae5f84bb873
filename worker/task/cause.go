package task

import "time"

// Cause is why a chunk or a task failed. The set is closed: failure reports,
// logs, DLQ attributes and the CLI use these values and no others.
type Cause string

// The causes.
const (
	InvalidTask      Cause = "invalid_task"      // the message is not a task
	UnknownGenerator Cause = "unknown_generator" // no such generator here
	Environment      Cause = "environment"       // module or library missing, no network, usage error
	// the generator exited non-zero or was killed by a signal of its own making
	Crashed          Cause = "crashed"
	IncompleteOutput Cause = "incomplete_output" // too few or too many samples, or a required file missing
	CorruptOutput    Cause = "corrupt_output"    // a picture or video is incomplete or damaged
	TimedOut         Cause = "timed_out"         // still running when its time was up
	OutOfMemory      Cause = "out_of_memory"     // killed for the memory it used
	DiskFull         Cause = "disk_full"         // no room for what it wrote
	Storage          Cause = "storage"           // the bucket or the queue did not do what was asked
	UnsafeOutput     Cause = "unsafe_output"     // links or files that leave the folder, too large, too many
	Conflict         Cause = "conflict"          // it contradicts what its dataset pins, or what is committed
	Lost             Cause = "lost"              // in the DLQ without a report: the worker was killed
)

// Policy is what follows from a cause.
type Policy struct {
	Retry    bool          // it may pass next time; otherwise the task goes straight to the DLQ
	NextSeed bool          // the generator itself is to blame: the next attempt's seed may do better
	Fewer    bool          // the machine was short of something: first again with fewer others beside it
	Backoff  time.Duration // how long the first redelivery waits; doubled for each further one
	Means    string        // one sentence for an operator
	Remedy   string        // what the operator can do about it
}

// policies is the one table of what is retried, how and after how long. The backoffs are short where the next try sees
// other conditions (another machine, another seed) and longer where something outside must recover.
var policies = map[Cause]Policy{
	InvalidTask:      {Means: "the message is not a task", Remedy: "correct it and submit it again"},
	UnknownGenerator: {Means: "no such generator in the worker's image", Remedy: "add the generator, or correct its name"},
	Environment: {Means: "the generator's Python environment does not fit it",
		Remedy: "read the report's stderr, fix requirements.txt, build again"},
	Conflict: {Means: "it contradicts what its dataset pins, or what is committed",
		Remedy: "make another dataset: submit --dataset NAME; or, for a newer commit of the generator, submit " +
			"--update-generators and replay"},
	Crashed: {Retry: true, NextSeed: true, Backoff: 10 * time.Second,
		Means:  "the generator failed on every seed it was given",
		Remedy: "read the report's stderr; a replay tries further seeds"},
	IncompleteOutput: {Retry: true, NextSeed: true, Backoff: 10 * time.Second,
		Means:  "the generator wrote too few or too many samples, or left a file out",
		Remedy: "check the generator; a replay tries further seeds"},
	CorruptOutput: {Retry: true, NextSeed: true, Backoff: 10 * time.Second,
		Means:  "a picture or video was incomplete or damaged",
		Remedy: "check the generator and the room for temporary files"},
	UnsafeOutput: {Retry: true, NextSeed: true, Backoff: 10 * time.Second,
		Means: "the generator left its folder, or wrote too much", Remedy: "check the generator"},
	TimedOut: {Retry: true, Backoff: 30 * time.Second, Means: "the chunk did not finish in its time",
		Remedy: "replay with a smaller --chunk, with --fresh-seed if it hangs, or give it more time"},
	OutOfMemory: {Retry: true, Fewer: true, Backoff: 30 * time.Second,
		Means:  "the generator used more memory than there is, also when it ran alone",
		Remedy: "replay with a smaller --chunk, or give it more memory"},
	DiskFull: {Retry: true, Fewer: true, Backoff: 60 * time.Second, Means: "the disk of the worker was full",
		Remedy: "make room, or replay with a smaller --chunk"},
	Storage: {Retry: true, Backoff: 30 * time.Second, Means: "the bucket or the queue did not answer as it should",
		Remedy: "replay when it is well again"},
	Lost: {Retry: true, Means: "the worker was killed and could not report",
		Remedy: "replay; if it comes back, replay with a smaller --chunk"},
}

// Causes lists every cause, in the order of the documentation.
func Causes() []Cause {
	return []Cause{InvalidTask, UnknownGenerator, Environment, Crashed, IncompleteOutput, CorruptOutput, TimedOut,
		OutOfMemory, DiskFull, Storage, UnsafeOutput, Conflict, Lost}
}

// Policy returns what follows from c.
func (c Cause) Policy() Policy { return policies[c] }

// MaxBackoff keeps a retry from waiting longer than one visibility timeout.
const MaxBackoff = 15 * time.Minute

// Delay returns how long a message that failed for c on its receives-th delivery (counted from 1) waits for the next.
func (c Cause) Delay(receives int) time.Duration {
	return min(c.Policy().Backoff<<min(max(receives-1, 0), 10), MaxBackoff)
}

// SeedTries is how many seeds a delivery tries, and how many attempts further on a replayed task starts.
const SeedTries = 3

// Attributes of the messages that a worker sends on or to the DLQ. They keep
// what SQS would otherwise forget: which message it was first.
const (
	AttributeCause     = "cause"            // a Cause; DLQ only
	AttributeDetail    = "detail"           // one sentence; DLQ only
	AttributeReport    = "report"           // key of the failure report; DLQ only
	AttributeMessageID = "first_message_id" // id of the message that started it
	AttributeReceives  = "receives"         // deliveries so far, over all messages
)
