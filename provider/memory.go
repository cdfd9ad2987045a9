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

// defaultMemory is assumed where there is no GOMEMLIMIT: that of the DaemonSet.
const defaultMemory = 216 << 20

// baseMemory is what the process has without a mount: its own, what requests take
// while they are received, and short requests that wait.
const baseMemory = 48 << 20

// minMemory is enough for one mount at a time of the most expensive kind.
const minMemory = 64 << 20

// mountMemory returns how many bytes mounts may hold together: what is left of
// GOMEMLIMIT without the republish cache, which has a limit of its own.
func mountMemory(republishCacheBytes int64) int64 {
	limit := debug.SetMemoryLimit(-1) // which only reads it
	if limit == math.MaxInt64 {
		limit = defaultMemory + max(0, republishCacheBytes-DefaultRepublishCacheBytes)
	}
	return max(limit-republishCacheBytes-baseMemory, minMemory)
}

// What a mount holds of memory is reserved before it is allocated, in two steps,
// because the second cannot be known before the first: the request and what it is
// parsed to; then the Secret, what it decrypts to, and the response. Each step has
// its own share of the memory. Who holds of the second never waits for the first,
// so that a mount which holds something can always finish.
//
// The costs are upper bounds of what is alive at a time, measured by
// TestHostileInputs in cmd/secretmanager-provider.

// nodeCost is what a node of a parsed document takes, with its share of the lists
// and maps that it is in.
const nodeCost = 256

// treeCost is what it takes to parse a text with so many nodes.
func treeCost(size, nodes int) int64 {
	return 4*int64(size) + nodeCost*int64(min(nodes, document.MaxNodes))
}

// heldCost is what a request takes: its text, as it came and decoded.
func heldCost(r *request, in *v1alpha1.MountRequest) int64 {
	size := len(in.GetAttributes()) + len(in.GetSecrets()) + len(in.GetTargetPath())
	members, _ := document.JSONSize([]byte(in.GetSecrets()))
	return 4*int64(size) + nodeCost*int64(members+len(r.attributes)+len(r.Objects))
}

// requestCost is heldCost, and what it takes to read objects.
func requestCost(r *request, in *v1alpha1.MountRequest) int64 {
	objects := r.attributes["objects"]
	if len(objects) > class.MaxObjectsBytes {
		objects = "" // it is refused without a look at it
	}
	return heldCost(r, in) + treeCost(len(objects), document.YAMLNodes(objects))
}

// workCost is what it takes to decrypt the entries and to make the response.
func workCost(objects []class.Object, data map[string][]byte, entries []string) int64 {
	var cost, document, answer int64
	for _, entry := range entries {
		// In the request to Vault and its answer, as JSON and decoded.
		cost += 7*int64(len(data[entry])) + 2*nodeCost
	}
	for _, o := range objects {
		plaintext := len(data[o.Entry]) / 4 * 3
		answer += int64(2*len(o.Path)+plaintext) + nodeCost
		if o.Field != nil {
			document = max(document, treeCost(plaintext, plaintext/2)) // one at a time
			answer += 5 * int64(plaintext)                             // JSON may write a byte as six
		}
	}
	return cost + document + sendCost(min(answer, maxAnswer))
}

// sendCost is what a response takes: its files, as they are sent, and as they are
// kept to be sent again.
func sendCost(size int64) int64 { return 3 * size }

// readCost is what a long answer of the API server takes, and all that may follow.
const readCost = 3*maxSecretAnswer + 7<<20 + 4<<20 + nodeCost*document.MaxNodes + 3*maxAnswer

// holds is what a mount has been granted. Its zero value is nothing.
type holds struct{ request, work *quota.Grant }

func (h *holds) release() {
	h.work.Release()
	h.request.Release()
	*h = holds{}
}

// admitRequest waits for the memory of the request.
func (h *holds) admitRequest(ctx context.Context, p *Provider, r *request, in *v1alpha1.MountRequest) (err error) {
	size := len(in.GetAttributes()) + len(in.GetSecrets()) + len(in.GetTargetPath())
	h.request, err = p.requests.Acquire(ctx, r.pod.namespace, requestCost(r, in), int64(size))
	return err
}

// admitWork waits for the memory of the response, unless there is more than that
// already.
func (h *holds) admitWork(ctx context.Context, p *Provider, namespace string, cost int64) (err error) {
	if h.work != nil {
		h.work.Shrink(cost)
		return nil
	}
	h.work, err = p.works.Acquire(ctx, namespace, cost, 0)
	return err
}

// admitLargest waits for the memory of the largest response there may be, before
// its size is known. What is too much is given back by admitWork.
func (h *holds) admitLargest(ctx context.Context, p *Provider, namespace string) error {
	if h.work != nil {
		return nil
	}
	return h.admitWork(ctx, p, namespace, readCost)
}

// waited makes the failure of a mount that could not wait any longer.
func (p *Provider) waited(r *request, err error) *failure.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, quota.ErrNoRoom):
		return failure.NodeBusy.New(r.describe("mounting the volume of"), err.Error(),
			"the size of their Secrets and classes; the kubelet tries again by itself")
	}
	return p.timeoutFailure(r, "waiting for other mounts")
}
