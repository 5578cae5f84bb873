# The commands of a maintainer. CI runs the same ones (.ci/run).
LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.11.0

.PHONY: check test bench lint cover hooks

check: lint test

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go mod tidy -diff
	go vet ./...
	go run $(LINT) run

test:
	go test -race ./...

# docs/PERFORMANCE.md says what they measure; some need a quiet machine.
bench:
	go test -run '^$$' -bench . -timeout 60m ./...

cover:
	go test -coverprofile=coverage.out ./... && go tool cover -func=coverage.out | tail -n 1

# Git runs the checks that take seconds before each commit.
hooks:
	git config core.hooksPath .githooks
