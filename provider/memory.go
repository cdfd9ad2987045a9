package provider

import (
	"context"
	"errors"
	"math"
	"runtime/debug"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/quota"
)

// defaultMemory is the limit in bytes without GOMEMLIMIT. It is the limit of the DaemonSet.
const defaultMemory = 216 << 20

// baseMemory is what the process uses in bytes without a mount: its own memory, requests that are being received, and
// short requests that wait.
const baseMemory = 48 << 20

// minMemory in bytes is enough for one of the most expensive mounts at a time.
const minMemory = 64 << 20

// mountMemory returns how many bytes all mounts together may use: GOMEMLIMIT without the republish cache, which has a
// separate limit.
func mountMemory(republishCacheBytes int64) int64 {
	limit := debug.SetMemoryLimit(-1) // which only reads it
	if limit == math.MaxInt64 {
		limit = defaultMemory + max(0, republishCacheBytes-DefaultRepublishCacheBytes)
	}
	return max(limit-republishCacheBytes-baseMemory, minMemory)
}

// A mount reserves memory before it allocates it, in two steps, because the first determines the size of the second:
// the request and its parsed form; then the Secret, its plaintext, and the response. Each step has its own share of the
// memory. A mount that holds memory of the second step never waits for the first, so it can always finish.
//
// The costs are upper bounds in bytes of what is in use at a time. TestHostileInputs in cmd/secretmanager-provider
// measures them.

// nodeCost is the cost of a node of a parsed document, with its share of the lists and maps that contain it.
const nodeCost = 256

// treeCost returns the cost of parsing a text of that size and number of nodes.
func treeCost(size, nodes int) int64 {
	return 4*int64(size) + nodeCost*int64(min(nodes, document.MaxNodes))
}

// requestSize returns the size of a request in bytes.
func requestSize(in *v1alpha1.MountRequest) int {
	return len(in.GetAttributes()) + len(in.GetSecrets()) + len(in.GetTargetPath())
}

// parsedCost returns the cost of a request once it is parsed: its text, as received and decoded.
func parsedCost(r *request, in *v1alpha1.MountRequest) int64 {
	members, _ := document.JSONSize([]byte(in.GetSecrets()))
	return 4*int64(requestSize(in)) + nodeCost*int64(members+len(r.attributes)+len(r.Objects))
}

// requestCost returns the cost of parsing a request.
func requestCost(r *request, in *v1alpha1.MountRequest) int64 {
	objects := r.attributes["objects"]
	if len(objects) > class.MaxObjectsBytes {
		objects = "" // it is refused and not parsed
	}
	return parsedCost(r, in) + treeCost(len(objects), document.YAMLNodes(objects))
}

// workCost returns the cost of decrypting the entries and building the response.
func workCost(objects []class.Object, data map[string][]byte, entries []string) int64 {
	var cost, document, response int64
	for _, entry := range entries {
		// In the request to Vault and its response, as JSON and decoded.
		cost += 7*int64(len(data[entry])) + 2*nodeCost
	}
	for _, o := range objects {
		plaintext := len(data[o.Entry]) / 4 * 3
		response += int64(2*len(o.Path)+plaintext) + nodeCost
		if o.Field != nil {
			document = max(document, treeCost(plaintext, plaintext/2)) // one at a time
			response += 5 * int64(plaintext)                           // JSON may escape a byte with six
		}
	}
	return cost + document + sendCost(min(response, maxResponse))
}

// sendCost returns the cost of a response: its files, their wire form, and the cached copy.
func sendCost(size int64) int64 { return 3 * size }

// readCost is the cost of reading a large Secret from the API server, and of the rest of the mount.
const readCost = 3*maxSecretResponse + 7<<20 + 4<<20 + nodeCost*document.MaxNodes + 3*maxResponse

// memoryGrants are the memory that a mount has reserved. The zero value is none.
type memoryGrants struct{ request, work *quota.Grant }

func (g *memoryGrants) release() {
	g.work.Release()
	g.request.Release()
	*g = memoryGrants{}
}

// acquireRequest waits for the memory to parse the request.
func (g *memoryGrants) acquireRequest(ctx context.Context, p *Provider, r *request,
	in *v1alpha1.MountRequest) (err error) {
	g.request, err = p.requests.Acquire(ctx, r.pod.namespace, requestCost(r, in), int64(requestSize(in)))
	return err
}

// acquireWork waits for the memory to decrypt and respond, or releases what [memoryGrants.acquireMax] has reserved
// beyond that.
func (g *memoryGrants) acquireWork(ctx context.Context, p *Provider, namespace string, cost int64) (err error) {
	if g.work != nil {
		g.work.Shrink(cost)
		return nil
	}
	g.work, err = p.works.Acquire(ctx, namespace, cost, 0)
	return err
}

// acquireMax waits for the memory of the largest possible Secret, before its size is known.
func (g *memoryGrants) acquireMax(ctx context.Context, p *Provider, namespace string) error {
	if g.work != nil {
		return nil
	}
	return g.acquireWork(ctx, p, namespace, readCost)
}

// acquireFailure returns the failure of a mount that got no memory; nil for nil.
func (p *Provider) acquireFailure(r *request, err error) *failure.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, quota.ErrNoRoom):
		return failure.NodeBusy.New(r.describe("mounting the volume of"), err.Error(),
			"the size of their Secrets and classes; the kubelet tries again by itself")
	}
	return p.timeoutFailure(r, "waiting for other mounts")
}
