package provider

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Mount returns all files of the volume and the version of each, or an error with a final code (see the package
// comment). It ends within the mount timeout.
func (p *Provider) Mount(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	var g memoryGrants
	defer g.release()
	return p.mountReserved(ctx, in, &g)
}

// mountReserved is Mount after the deadline is set. It adds the memory that it reserves to g, which the caller releases
// when the response is no longer needed.
func (p *Provider) mountReserved(ctx context.Context, in *v1alpha1.MountRequest,
	g *memoryGrants) (resp *v1alpha1.MountResponse, err error) {
	l := p.newMountLog()
	p.metrics.inFlight.Inc()
	// It runs after a panic too, with neither a response nor an error.
	defer func() {
		p.finish(ctx, &l, resp, err)
	}()

	exact := p.responses.requestDigest(in)
	if namespace, size := p.responses.sizeExact(exact); size > 0 &&
		g.acquireWork(ctx, p, namespace, sendCost(size)) == nil {
		if cached := p.responses.getExact(exact); cached != nil {
			l.source, l.ciphertext, l.entries, l.cachedRecord = sourceCache, fromKubelet, cached.entries, cached.record
			if p.log.Enabled(ctx, slog.LevelDebug) {
				// The log needs its names. No memory is reserved for that, because it might wait.
				var failed *failure.Error
				l.request, failed = p.parse(in)
				l.parsed = failed == nil
			}
			return cached.MountResponse, nil
		}
		g.release()
	}
	r, failed := p.readAttributes(in)
	r.digest = exact
	l.request = r
	if failed == nil {
		failed = p.acquireFailure(r, g.acquireRequest(ctx, p, r, in))
	}
	if failed == nil {
		failed = p.validate(r, in)
	}
	l.parsed = failed == nil
	if failed == nil {
		g.request.Shrink(parsedCost(r, in)) // the parsed objects are no longer needed
		resp, failed = p.mount(ctx, r, g, &l)
	}
	if failed != nil {
		return nil, failure.Final(failed, r.tokens.all()...)
	}
	p.volumes.Add(p.volumeDigest(r), nil)
	return resp, nil
}

// maxVolumes bounds the record of mounted volumes. A node has a few hundred pods at most.
const maxVolumes = 4096

// volumeDigest identifies a volume.
func (p *Provider) volumeDigest(r *request) (d digest) {
	h := p.digests.hash("volume")
	h.add(r.pod.uid, r.target)
	h.sum(&d)
	return d
}

// hasMounted reports whether this process has mounted a volume before, so that its pod runs and only misses an update
// when a mount fails.
func (p *Provider) hasMounted(r *request) bool {
	if r == nil {
		return false // after a panic before the request was read
	}
	_, ok := p.volumes.Get(p.volumeDigest(r))
	return ok
}

func (p *Provider) newMountLog() mountLog {
	return mountLog{started: p.now(), id: rand.Text(), node: p.config.Node}
}

// finish logs and counts a finished mount.
func (p *Provider) finish(ctx context.Context, l *mountLog, resp *v1alpha1.MountResponse, err error) {
	l.took = p.now().Sub(l.started)
	reason := reasonOf(resp, err)
	p.metrics.mountFinished(reason, l.source, l.took)
	if resp == nil && !p.hasMounted(l.request) {
		p.metrics.newMountsFailed.Inc()
	}
	l.write(ctx, p.log, resp, err)
	if p.audit != nil {
		p.audit.Write(l.line(reason))
	}
}

// finishUnread logs and counts a mount whose request could not be read.
func (p *Provider) finishUnread(ctx context.Context, err error) {
	l := p.newMountLog()
	p.finish(ctx, &l, nil, failure.Final(err))
}

// deadline sets the deadline of a mount: the mount timeout, or a moment before the driver's deadline if that is
// earlier. After the driver's deadline its client fails with DeadlineExceeded, whatever the provider returns.
func (p *Provider) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := p.config.MountTimeout
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		timeout = min(timeout, left-min(left/10, time.Second))
	}
	return context.WithTimeout(ctx, timeout)
}

func (p *Provider) mount(ctx context.Context, r *request, g *memoryGrants,
	l *mountLog) (*v1alpha1.MountResponse, *failure.Error) {
	jwt, failed := r.tokens.pick(r.Audience, "log in to Vault", r.pod, p.now())
	if failed != nil {
		return nil, failed
	}
	data, from, failed := p.readEntries(ctx, r, g)
	l.ciphertext = from
	if failed != nil {
		return nil, failed
	}
	objects, entries, failed := r.selectEntries(data, from)
	if failed != nil {
		return nil, failed
	}
	l.entries = len(entries)
	err := g.acquireWork(ctx, p, r.pod.namespace, workCost(objects, data, entries))
	if failed := p.acquireFailure(r, err); failed != nil {
		return nil, failed
	}
	key, cacheable := p.responses.key(r, jwt, data, entries)
	if cacheable {
		if from == fromKubelet {
			key.request = r.digest // otherwise the request does not contain the ciphertext
		}
		if cached := p.responses.get(key); cached != nil {
			l.source, l.cachedRecord = sourceCache, cached.record
			return cached.MountResponse, nil
		}
	}
	l.source, l.decrypting = sourceVault, auditEntries(data, entries)
	ctx = transit.WithAudit(ctx, r.auditHeaders(jwt.claims, l.id, l.node))
	plaintext, failed := p.decrypt(ctx, r, from, jwt, data, l.decrypting)
	if failed != nil {
		return nil, failed
	}
	resp, failed := p.buildResponse(ctx, r, objects, plaintext)
	if failed == nil && cacheable {
		if p.audit != nil {
			key.record = string(l.line(nil))
		}
		p.responses.put(key, resp)
	}
	return resp, failed
}

// login returns the source of the Vault token of a mount. Mounts with the same service account token, which are those
// of one pod, share the login.
func (p *Provider) login(r *request, jwt ownToken) *mountTokenSource {
	s := &mountTokenSource{jwt: jwt.text, metrics: p.metrics}
	source := p.logins.get(p.loginKey(r, jwt.text), jwt.expires, func() *transit.LoginSource {
		return p.vaults[r.VaultAddress].NewLoginSource(transit.Login{
			Namespace: r.VaultNamespace, Mount: r.AuthMount, Role: r.Role,
		})
	})
	s.TokenSource = source.With(s.serviceAccountToken)
	return s
}

// mountTokenSource is the token source of one mount. It records the last token and error, to tell a failed login from a
// failed batch, and counts cache hits.
type mountTokenSource struct {
	transit.TokenSource
	jwt     string
	metrics *metrics
	used    bool // the last call of Token used the service account token
	token   string
	err     error
}

// serviceAccountToken is called when no Vault token is cached.
func (s *mountTokenSource) serviceAccountToken() (string, error) {
	s.used = true
	return s.jwt, nil
}

func (s *mountTokenSource) Token(ctx context.Context) (string, error) {
	s.used = false
	s.token, s.err = s.TokenSource.Token(ctx)
	s.metrics.loginLookup(!s.used)
	return s.token, s.err
}

// decrypt logs in, if needed, and decrypts the entries in one batch. It marks the entries that Vault decrypted.
func (p *Provider) decrypt(ctx context.Context, r *request, from string, jwt ownToken, data map[string][]byte,
	entries []auditEntry) (map[string][]byte, *failure.Error) {
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{Data: data[entry.Name], Context: r.Scope.Context(r.pod.namespace, r.Secret, entry.Name)}
	}
	results, failed := p.decryptItems(ctx, r, jwt, items)
	if failed != nil {
		return nil, failed
	}
	plaintext := make(map[string][]byte, len(entries))
	var found failure.Problems
	var checks []string
	var reason *failure.Reason // of the first entry that failed
	for i, result := range results {
		if result.Err != nil {
			if found.Full() {
				continue
			}
			e := r.entryFailure(entries[i].Name, from, result.Err)
			reason = cmp.Or(reason, e.Reason)
			found.Add(e.What + ": " + e.Cause)
			if !slices.Contains(checks, e.Check) {
				checks = append(checks, e.Check)
			}
			continue
		}
		plaintext[entries[i].Name], entries[i].Decrypted = result.Data, true
	}
	if len(found) > 0 {
		return nil, reason.New(fmt.Sprintf("decrypting %s with %s", r.describeSecret(), r.Key), failure.List(found),
			strings.Join(checks, "; "))
	}
	return plaintext, nil
}
