package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Raft is what a member of a cluster with integrated storage needs in addition.
type Raft struct {
	// Node is the name of the member.
	Node string
	// Address is where it listens for the other members.
	Address *net.TCPAddr
}

// URL returns the address as members advertise it. They always use TLS, with certificates of their own.
func (r *Raft) URL() string { return "https://" + r.Address.String() }

// Storage returns the configuration of the storage in a directory. Members elect a leader as fast as raft allows, which
// Vault recommends for production, and a new member soon becomes one that votes.
func (r *Raft) Storage(dir string) map[string]string {
	return map[string]string{
		"path": dir, "node_id": r.Node, "performance_multiplier": "1",
		"autopilot_update_interval": "200ms", "autopilot_reconcile_interval": "500ms",
	}
}

// raftOptions are the flags of a member.
type raftOptions struct {
	node      string
	address   string
	join      string
	unsealKey string
}

func (o *raftOptions) addFlags() {
	flag.StringVar(&o.node, "raft-node", "", "`name` of this member of a cluster with integrated storage (raft), which "+
		"needs --raft-address and --storage; empty is a server of its own")
	flag.StringVar(&o.address, "raft-address", "", "`host:port` to listen on for the other members, with a fixed port")
	flag.StringVar(&o.join, "raft-join", "", "`URL` of the first member, which has initialized the cluster; empty makes "+
		"this member initialize it")
	flag.StringVar(&o.unsealKey, "unseal-key", "", "the `key` of the first member, with --raft-join")
}

// member returns the member of the flags, or nil.
func (o *options) member() (*Raft, error) {
	if o.raft == (raftOptions{}) {
		return nil, nil
	}
	if o.raft.node == "" || o.raft.address == "" || o.storage == "" || (o.raft.join == "") != (o.raft.unsealKey == "") {
		return nil, errors.New("a member of a cluster needs --raft-node, --raft-address and --storage, and either both of " +
			"--raft-join and --unseal-key or none of them")
	}
	address, err := net.ResolveTCPAddr("tcp", o.raft.address)
	if err != nil {
		return nil, fmt.Errorf("invalid --raft-address: %w", err)
	}
	return &Raft{Node: o.raft.node, Address: address}, nil
}

// joinCluster makes the core a member of the cluster, after it is unsealed.
func (s *setup) joinCluster(ctx context.Context, o options) (*keys, error) {
	request := map[string]any{"leader_api_addr": o.raft.join}
	if err := s.request(ctx, http.MethodPut, "sys/storage/raft/join", request, nil); err != nil {
		return nil, err
	}
	return &keys{UnsealKey: o.raft.unsealKey, RootToken: o.rootToken}, nil
}

// awaitMember waits until the core is the leader of the cluster, or else a standby if that is enough. Unsealing a
// member returns before.
func (s *setup) awaitMember(ctx context.Context, standby bool) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		switch code := s.send(ctx, http.MethodGet, "sys/health", nil).Code; {
		case code == http.StatusOK, code == http.StatusTooManyRequests && standby:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
