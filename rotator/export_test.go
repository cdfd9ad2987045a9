package rotator

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
)

// The duration of a Lease, how long requests to the API server are retried, and the
// maximum number of Events.
const (
	LeaseDuration = leaseDuration
	RetryKube     = retryKube
	MaxEvents     = maxEvents
)

// Tests rotate many times in a short time, and restore keys.
func init() { rotateInterval, lagFor = 0, 0 }

// Inside has the settings of a run that only tests change.
type Inside struct {
	PageSize       int64
	RetryFor       time.Duration
	RotateInterval time.Duration
	SearchBudget   int
	LagFor         time.Duration
	// VaultClock and KubeClock replace the times of Vault and of the API server.
	VaultClock, KubeClock func() time.Time
}

// RunInside is Run with these settings.
func RunInside(ctx context.Context, vault Vault, kube kubernetes.Interface, opts Options,
	in Inside) (*Report, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	r := newRun(vault, kube, opts)
	if in.RotateInterval != 0 {
		r.rotateInterval = in.RotateInterval
	}
	r.searchBudget, r.lagFor = in.SearchBudget, in.LagFor
	r.vaultClock, r.kubeClock = in.VaultClock, in.KubeClock
	if in.PageSize != 0 {
		r.pageSize = in.PageSize
	}
	if in.RetryFor != 0 {
		r.retry = kuberetry.New(in.RetryFor)
	}
	return r.run(ctx)
}

// RunPaged is Run with another page size.
func RunPaged(ctx context.Context, vault Vault, kube kubernetes.Interface, opts Options,
	size int64) (*Report, error) {
	return RunInside(ctx, vault, kube, opts, Inside{PageSize: size})
}

// RunLeased is Run with another duration of the Lease.
func RunLeased(ctx context.Context, vault Vault, kube kubernetes.Interface, opts Options,
	duration time.Duration) (*Report, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	r := newRun(vault, kube, opts)
	r.lease.duration = duration
	return r.run(ctx)
}

// ShardName returns the name of the ConfigMap that has a key.
func ShardName(k ciphertext.Key) string { return shardName(shardOf(stateEntry(k))) }
