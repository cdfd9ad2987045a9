package rotator

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/transit"
)

// RunPaged is Run with pages of another size.
func RunPaged(ctx context.Context, vault *transit.Session, kube kubernetes.Interface, opts Options, size int64) (*Report, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	r := newRun(vault, kube, opts)
	r.pageSize = size
	return r.run(ctx)
}

// RunLeased is Run with a Lease of another duration.
func RunLeased(ctx context.Context, vault *transit.Session, kube kubernetes.Interface, opts Options, duration time.Duration) (*Report, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	r := newRun(vault, kube, opts)
	r.lease.duration = duration
	return r.run(ctx)
}
