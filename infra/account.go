package infra

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/servicequotas"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// account is the account and region that a stack is deployed to.
type account struct{ id, region, partition string }

// askAccount asks AWS where the stack goes, and refuses settings that this account does not take. It registers no
// resource. Credentials that may not read Lambda's quota deploy all the same, with a note.
func askAccount(ctx *pulumi.Context, c *Config) (account, error) {
	who, err := aws.GetCallerIdentity(ctx, nil)
	if err != nil {
		return account{}, fmt.Errorf("AWS does not accept the credentials: %w", err)
	}
	region, err := aws.GetRegion(ctx, nil)
	if err != nil {
		return account{}, err
	}
	a := account{who.AccountId, region.Name, partitionOf(region.Name)}
	r := reader{ctx: ctx, prefix: ctx.Project() + ":"}
	if len(c.AllowedAccountIDs) > 0 && !slices.Contains(c.AllowedAccountIDs, a.id) {
		r.refuse("allowedAccountIds", strings.Join(c.AllowedAccountIDs, ", "),
			"but the credentials are of account %s: use another profile, or add the account", a.id)
		return a, r.errs[0]
	}
	if c.MonthlyBudgetUSD > 0 && a.partition == partitionGov {
		r.refuse("monthlyBudgetUSD", c.MonthlyBudgetUSD, "but %s has no AWS Budgets: pulumi config rm monthlyBudgetUSD",
			a.region)
	}
	code := "L-B99A9384" // concurrent executions
	quota, err := servicequotas.LookupServiceQuota(ctx,
		&servicequotas.LookupServiceQuotaArgs{ServiceCode: "lambda", QuotaCode: &code})
	if err != nil {
		if err := ctx.Log.Info("maxConcurrency is not checked, because AWS does not say how many workers the account may "+
			"have: "+err.Error(), nil); err != nil {
			return a, err
		}
	} else if err := c.checkQuota(&r, int(quota.Value)); err != nil {
		return a, err
	}
	if len(r.errs) > 0 {
		return a, r.errs[0]
	}
	return a, nil
}

// checkQuota compares the settings with how many workers the account may have in Lambda at once, if Lambda has any.
func (c *Config) checkQuota(r *reader, quota int) error {
	if c.Lambda && c.MaxConcurrency > quota {
		way := "pulumi config set size " + Starter
		if quota != newAccountConcurrency || c.Size == Starter {
			way = fmt.Sprintf("pulumi config set maxConcurrency %d", max(quota, minMappingConcurrency))
		}
		r.refuse("maxConcurrency", c.MaxConcurrency,
			"but the account may have %d workers at once: %s, or ask AWS for more (Service Quotas, Lambda, Concurrent executions)",
			quota, way)
	}
	if free := max(quota-unreservedConcurrency, 0); c.Lambda && c.ReservedConcurrency > free {
		r.refuse("reservedConcurrency", c.ReservedConcurrency,
			"but the account may have %d workers at once and can reserve at most %d of them: pulumi config rm reservedConcurrency",
			quota, free)
	}
	// No API answers how much memory is allowed. Accounts that are new in the one are in the other.
	if quota <= newAccountConcurrency && c.MemoryMB > newAccountMemoryMB {
		return r.ctx.Log.Warn(fmt.Sprintf(
			"the account looks new (%d workers at once), and new accounts refuse more than %d MB: should AWS refuse the function, pulumi config set memoryMB %d",
			quota, newAccountMemoryMB, newAccountMemoryMB), nil)
	}
	return nil
}

// Partitions of AWS: accounts of one have nothing to do with another.
const (
	partitionAWS   = "aws"
	partitionChina = "aws-cn"
	partitionGov   = "aws-us-gov"
)

func partitionOf(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return partitionChina
	case strings.HasPrefix(region, "us-gov-"):
		return partitionGov
	}
	return partitionAWS
}

// console is the host of the web console.
func (a account) console() string {
	switch a.partition {
	case partitionChina:
		return "console.amazonaws.cn"
	case partitionGov:
		return "console.amazonaws-us-gov.com"
	}
	return a.region + ".console.aws.amazon.com"
}
