// Package price is the one table of what AWS charges: the dashboard's estimate, ops plan and ops monitor all use it.
//
// It is a leaf: it imports the standard library alone.
package price

// Region is where the prices hold: on demand, first tier, without what is free. They were read for us-east-1, whose
// prices these are too. Those of other regions differ.
const Region = "us-east-2"

// Instruction sets of a function, as Lambda names them.
const (
	X86 = "x86_64"
	ARM = "arm64"
)

// Units: a GB is 2^30 bytes, a month 730 hours.
const (
	MegabytesPerGB = 1024
	BytesPerGB     = 1 << 30
	HoursPerMonth  = 730
)

// FreeDiskMB is the ephemeral storage of a function that costs nothing.
const FreeDiskMB = 512

// Price is what a unit of something costs in USD.
type Price struct {
	Dollars float64 `json:"dollars"`
	Unit    string  `json:"unit"`
	Source  string  `json:"source"` // AWS's page
	Date    string  `json:"date"`   // when it was such, year, month and day
}

// The prices.
var (
	GBSecondX86  = Price{0.0000166667, "GB-second of memory, x86_64", lambda, listed}
	GBSecondARM  = Price{0.0000133334, "GB-second of memory, arm64", lambda, listed}
	DiskGBSecond = Price{0.0000000309, "GB-second of ephemeral storage beyond 512 MB", lambda, listed}
	Invocation   = Price{0.20 / 1e6, "invocation", lambda, listed}
	QueueRequest = Price{0.40 / 1e6, "SQS request", sqs, "2026-03-14"}
	Put          = Price{0.005 / 1e3, "S3 PUT or LIST", s3, listed}
	Get          = Price{0.0004 / 1e3, "S3 GET", s3, listed}
	StorageMonth = Price{0.023, "GB-month in S3 Standard", s3, listed}
	Download     = Price{0.09, "GB from S3 to the internet", s3, "2026-06-05"}
	LogGB        = Price{0.50, "GB of logs taken in", cloudwatch, "2026-04-12"}
	MetricMonth  = Price{0.30, "metric and month, by the hour", cloudwatch, "2026-04-12"}
	Address      = Price{0.005, "hour of a public IPv4 address", vpc, "2026-04-01"}
)

// Spot prices, of x86_64. They change with demand, and EC2's differ between instance types and zones: c7i cost 0.0126
// to 0.0143 for a vCPU and hour in us-east-2 and 0.017 to 0.021 in us-east-1 in the catalogue of SkyPilot that was read
// on the date given (its commit 00148f2). The higher is taken. Those of Fargate are what the feed behind its page had
// for us-east-1 on the date given; in us-east-2 they were 1 % higher than there in 2021.
var (
	FargateSpotCPU = Price{0.01288871, "vCPU-hour of Fargate spot", fargate, "2026-09-28"}
	FargateSpotGB  = Price{0.00141527, "GB-hour of memory of Fargate spot", fargate, "2026-09-28"}
	EC2Spot        = Price{0.021, "vCPU-hour of an EC2 spot instance with 2 GB for each", spot, "2026-11-29"}
)

// listed is when others had the prices of Lambda and S3 from AWS's price list API, and
// published what it answered. The other dates are of articles that quote AWS's pages.
const listed = "2025-10-28"

// Pages that have the prices now.
const (
	lambda     = "https://aws.amazon.com/lambda/pricing/"
	sqs        = "https://aws.amazon.com/sqs/pricing/"
	s3         = "https://aws.amazon.com/s3/pricing/"
	cloudwatch = "https://aws.amazon.com/cloudwatch/pricing/"
	vpc        = "https://aws.amazon.com/vpc/pricing/"
	fargate    = "https://aws.amazon.com/fargate/pricing/"
	spot       = "https://aws.amazon.com/ec2/spot/pricing/"
)

// PerSecond is what a second of one invocation costs: its memory, and its ephemeral storage beyond what is free.
func PerSecond(memoryMB, diskMB int, architecture string) float64 {
	perGB := GBSecondX86
	if architecture == ARM {
		perGB = GBSecondARM
	}
	return float64(memoryMB)/MegabytesPerGB*perGB.Dollars +
		float64(max(diskMB-FreeDiskMB, 0))/MegabytesPerGB*DiskGBSecond.Dollars
}
