package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// resident is the resident memory of the provider in bytes.
type resident struct {
	Start   int64 `json:"start"`
	Pods110 int64 `json:"pods110"`
	Pods1k  int64 `json:"pods1000"`
}

// requests is the mean number of requests of a mount.
type requests struct {
	From  string  `json:"from"`
	Kind  string  `json:"kind"`
	Vault float64 `json:"vault"`
	API   float64 `json:"api"`
}

// emptyCall returns the median duration of calls without work. It is the share of gRPC and
// the scheduler in each mount.
func (d *driver) emptyCall(ctx context.Context) (time.Duration, error) {
	latencies := make([]time.Duration, 300)
	for i := range latencies {
		began := time.Now()
		if _, err := d.client.Version(ctx, &v1alpha1.VersionRequest{}); err != nil {
			return 0, err
		}
		latencies[i] = time.Since(began)
	}
	slices.Sort(latencies)
	return percentile(latencies, 50), nil
}

// memory starts a new provider, mounts for more and more pods, 16 at a time as after a
// reboot, and counts its requests.
func memory(ctx context.Context, e *environment, dir string) (m resident, counts []requests, empty time.Duration,
	err error) {
	vault, err := newCounter(e.vault.Address, nil)
	if err != nil {
		return m, nil, 0, err
	}
	defer vault.Close()
	api, err := newCounter(e.api.Address, e.admin.Transport)
	if err != nil {
		return m, nil, 0, err
	}
	defer api.Close()
	kubeconfig := filepath.Join(dir, "counted.kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "counted",
		"clusters": [{"name": "counted", "cluster": {"server": %q}}],
		"contexts": [{"name": "counted", "context": {"cluster": "counted"}}]}`, api.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return m, nil, 0, err
	}
	p, err := startProvider(ctx, dir, "counted", vault.URL, kubeconfig)
	if err != nil {
		return m, nil, 0, err
	}
	defer func() { err = errors.Join(p.explain(err), p.stop()) }()

	// Let work in the background finish.
	select {
	case <-ctx.Done():
		return m, nil, 0, ctx.Err()
	case <-time.After(time.Second):
	}
	if m.Start, err = p.rss(); err != nil {
		return m, nil, 0, err
	}
	if empty, err = p.emptyCall(ctx); err != nil {
		return m, nil, 0, err
	}
	for _, step := range []struct {
		pods int
		rss  *int64
	}{{110, &m.Pods110}, {1000 - 110, &m.Pods1k}} {
		calls, err := (&cell{From: fromKubelet, Kind: kindCold}).calls(ctx, e, nil, p, e.volumes[1], step.pods)
		if err != nil {
			return m, nil, 0, err
		}
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(16)
		for _, call := range calls {
			group.Go(func() error { return call(groupCtx) })
		}
		if err := group.Wait(); err != nil {
			return m, nil, 0, err
		}
		if *step.rss, err = p.rss(); err != nil {
			return m, nil, 0, err
		}
	}

	for _, from := range []string{fromKubelet, fromPod} {
		const n = 20
		calls, err := (&cell{From: from, Kind: kindCold}).calls(ctx, e, nil, p, e.volumes[1], n)
		if err != nil {
			return m, nil, 0, err
		}
		for _, kind := range []string{kindCold, kindRepeat} {
			vaultBefore, apiBefore := vault.requests.Load(), api.requests.Load()
			for _, call := range calls {
				if err := call(ctx); err != nil {
					return m, nil, 0, err
				}
			}
			counts = append(counts, requests{from, kind,
				float64(vault.requests.Load()-vaultBefore) / n, float64(api.requests.Load()-apiBefore) / n})
		}
	}
	return m, counts, empty, nil
}
