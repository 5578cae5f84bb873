# The commands of a maintainer. CI runs the same ones (.ci/run).
LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.11.0

.PHONY: check test provider-check nightly bench lint cover hooks

check: lint test

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go mod tidy -diff && go mod -C infra/cloudtest tidy -diff
	go vet ./... && go vet -C infra/cloudtest ./...
	go run $(LINT) run
	cd infra/cloudtest && go run $(LINT) run

test:
	go test -race ./...
	go test -C infra/cloudtest ./...

# The program's inputs, given to the real aws provider, where terraform has it.
provider-check:
	go test -tags provider -count 1 -v -timeout 30m -run '^TestProvider$$' ./infra

# What takes hours, of which CI runs a sample.
nightly:
	SCALE=1 go test -timeout 2h ./ops/plan ./ops/dataset
	SCALE=1 go test -timeout 2h -run '^Test(TaskOfManyInvocations|SameBytesWhateverHappens)$$' ./ops/local
	SCALE=1 go test -timeout 2h -run '^Test(LargeVideos|SheetsOfManySamples|SubmitStopped|VerifyOfLargePictures)$$' ./ops ./ops/export
	go test -timeout 0 -run '^TestProtocol$$' ./worker -rapid.checks 20000
	go test -timeout 1h -run '^TestWorkersAnywhere$$' ./ops -worker.schedules 20
	go test -timeout 0 -run '^TestChaos$$' ./ops/local -chaos.schedules 500 -chaos.parallel 10
	$(MAKE) bench

# docs/PERFORMANCE.md says what they measure; some need a quiet machine.
bench:
	go test -run '^$$' -bench . -timeout 60m ./...

cover:
	go test -coverprofile=coverage.out ./... && go tool cover -func=coverage.out | tail -n 1

# Git runs the checks that take seconds before each commit.
hooks:
	git config core.hooksPath .githooks
