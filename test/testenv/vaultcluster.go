package testenv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/async"
)

// A VaultCluster is a cluster of three Vaults with integrated storage (raft). A member that is not the leader forwards
// requests to it, and redirects to it if it cannot.
type VaultCluster struct {
	Members []*Vault
}

// NewVaultCluster starts a cluster that ends with the test. Its options apply to each member; TLS and Listen must not
// be set.
func NewVaultCluster(t testing.TB, options VaultOptions) *VaultCluster {
	t.Helper()
	options.OpenBao = options.OpenBao || onOpenBao(t)
	c := new(VaultCluster)
	t.Cleanup(func() {
		for _, member := range c.Members {
			member.Stop()
		}
	})
	for range 3 {
		member, err := c.start(t.Context(), options)
		if member != nil {
			c.Members = append(c.Members, member)
			showLogOnFailure(t, member)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Await(t)
	return c
}

// start starts the next member.
func (c *VaultCluster) start(ctx context.Context, options VaultOptions) (*Vault, error) {
	if options.TLS || options.Listen != "" {
		return nil, errors.New("starting a cluster of Vaults: TLS and Listen are not supported")
	}
	// Members know each other by these addresses, so a member has the same one after a restart.
	address, err := freeAddress()
	if err != nil {
		return nil, fmt.Errorf("starting a cluster of Vaults: %w", err)
	}
	flags := []string{fmt.Sprintf("--raft-node=node-%d", len(c.Members)), "--raft-address=" + address}
	if len(c.Members) > 0 {
		first := c.Members[0]
		flags = append(flags, "--raft-join="+first.Address, "--unseal-key="+first.unsealKey)
	}
	member, err := startVault(ctx, options, flags...)
	if err != nil || len(c.Members) > 0 {
		return member, err
	}
	// By default, a new member must be healthy for ten seconds before it can vote.
	_, err = member.Write(ctx, "sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "1s"})
	return member, err
}

// Address returns the addresses of all members, as --vault-addr takes them.
func (c *VaultCluster) Address() string {
	addresses := make([]string, 0, len(c.Members))
	for _, member := range c.Members {
		addresses = append(addresses, member.Address)
	}
	return strings.Join(addresses, ",")
}

// Leader waits until the running members agree about a leader, and returns it.
func (c *VaultCluster) Leader(t testing.TB) *Vault {
	t.Helper()
	var leader *Vault
	async.Wait(t, "a leader of the cluster", func() bool {
		leader = c.leader(t.Context())
		return leader != nil
	})
	return leader
}

// leader returns the leader if all running members know it and it is one of them, or nil.
func (c *VaultCluster) leader(ctx context.Context) *Vault {
	var leader *Vault
	for _, member := range c.Members {
		if !member.running() {
			continue
		}
		known := c.leaderOf(ctx, member)
		if known == nil || !known.running() || leader != nil && leader != known {
			return nil
		}
		leader = known
	}
	return leader
}

// leaderOf returns the leader that a member knows, or nil.
func (c *VaultCluster) leaderOf(ctx context.Context, member *Vault) *Vault {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status := member.status(ctx, "sys/leader")
	self, _ := status["is_self"].(bool)
	for _, other := range c.Members {
		if status["leader_address"] == other.Address && (other != member || self) {
			return other
		}
	}
	return nil
}

// Await waits until all members run, know the leader and can vote for the next one.
func (c *VaultCluster) Await(t testing.TB) {
	t.Helper()
	async.Wait(t, "all members of the cluster to vote", func() bool {
		leader := c.leader(t.Context())
		if leader == nil {
			return false
		}
		data, err := leader.Read(t.Context(), "sys/storage/raft/autopilot/state")
		healthy, _ := data["healthy"].(bool)
		voters, _ := data["voters"].([]any)
		return err == nil && healthy && len(voters) == len(c.Members)
	})
}
