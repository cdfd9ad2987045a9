package provider

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Mount returns all files of the volume and a version of each, or an error with
// one of the final codes (see the package). It ends within the mount timeout.
func (p *Provider) Mount(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	ctx, cancel := p.deadline(ctx)
	defer cancel()
	var h holds
	defer h.release()
	return p.mountHolding(ctx, in, &h)
}

// mountHolding is Mount with a deadline that has been set. What the mount holds of memory is in h, which the caller
// releases once the response is no longer needed.
func (p *Provider) mountHolding(ctx context.Context, in *v1alpha1.MountRequest,
	h *holds) (resp *v1alpha1.MountResponse, err error) {
	l := p.newMountLog()
	p.metrics.inFlight.Inc()
	// In a panic too: then there is neither answer nor error.
	defer func() {
		p.done(ctx, &l, resp, err)
	}()

	whole := p.republished.whole(in)
	if namespace, size := p.republished.find(whole); size > 0 && h.admitWork(ctx, p, namespace, sendCost(size)) == nil {
		if given := p.republished.again(whole); given != nil {
			l.source, l.ciphertext, l.entries, l.kept = sourceCache, fromKubelet, given.entries, given.record
			if p.log.Enabled(ctx, slog.LevelDebug) {
				// For its names. Room for that is not reserved: there may be a wait for it.
				var failed *failure.Error
				l.request, failed = p.parse(in)
				l.parsed = failed == nil
			}
			return given.MountResponse, nil
		}
		h.release()
	}
	r, failed := p.open(in)
	r.whole = whole
	l.request = r
	if failed == nil {
		failed = p.waited(r, h.admitRequest(ctx, p, r, in))
	}
	if failed == nil {
		failed = p.validate(r, in)
	}
	l.parsed = failed == nil
	if failed == nil {
		h.request.Shrink(heldCost(r, in)) // without what objects were parsed to
		resp, failed = p.mount(ctx, r, h, &l)
	}
	if failed != nil {
		return nil, failure.Final(failed, r.tokens.all()...)
	}
	p.remember(r)
	return resp, nil
}

// maxVolumes bounds the volumes that the provider remembers to have mounted. A node
// has a few hundred pods at most.
const maxVolumes = 4096

// volume returns what a volume is known by.
func (p *Provider) volume(r *request) (d digest) {
	h := p.digests.hash("volume")
	h.add(r.pod.uid, r.target)
	h.sum(&d)
	return d
}

// remember notes that a volume has its files.
func (p *Provider) remember(r *request) { p.volumes.Add(p.volume(r), nil) }

// mounted reports whether a volume has its files, so that a mount that fails costs
// its pod no more than a new value. After a restart the provider does not know.
func (p *Provider) mounted(r *request) bool {
	if r == nil {
		return false // a panic before the request was read
	}
	_, ok := p.volumes.Get(p.volume(r))
	return ok
}

func (p *Provider) newMountLog() mountLog {
	return mountLog{began: p.now(), id: rand.Text(), node: p.config.Node}
}

// done notes what became of a mount.
func (p *Provider) done(ctx context.Context, l *mountLog, resp *v1alpha1.MountResponse, err error) {
	l.took = p.now().Sub(l.began)
	reason := reasonOf(resp, err)
	p.metrics.mountDone(reason, l.source, l.took)
	if resp == nil && !p.mounted(l.request) {
		p.metrics.newMountsFailed.Inc()
	}
	l.write(ctx, p.log, resp, err)
	if p.audit != nil {
		p.audit.Write(l.line(reason))
	}
}

// unreceived notes a mount whose request could not be read.
func (p *Provider) unreceived(ctx context.Context, err error) {
	l := p.newMountLog()
	p.done(ctx, &l, nil, failure.Final(err))
}

// deadline sets the mount's own deadline. Should the driver's be sooner, ours
// comes before it: what runs into the driver's is DeadlineExceeded, whatever we
// answer.
func (p *Provider) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := p.config.MountTimeout
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		timeout = min(timeout, left-min(left/10, time.Second))
	}
	return context.WithTimeout(ctx, timeout)
}

func (p *Provider) mount(ctx context.Context, r *request, h *holds,
	l *mountLog) (*v1alpha1.MountResponse, *failure.Error) {
	jwt, failed := r.tokens.pick(r.Audience, "log in to Vault", r.pod, p.now())
	if failed != nil {
		return nil, failed
	}
	data, from, failed := p.entries(ctx, r, h)
	l.ciphertext = from
	if failed != nil {
		return nil, failed
	}
	objects, entries, failed := r.choose(data, from)
	if failed != nil {
		return nil, failed
	}
	l.entries = len(entries)
	if failed := p.waited(r, h.admitWork(ctx, p, r.pod.namespace, workCost(objects, data, entries))); failed != nil {
		return nil, failed
	}
	m, keep := p.republished.of(r, jwt, data, entries)
	if keep {
		if from == fromKubelet {
			m.request = r.whole // elsewhere, the ciphertext is not in it
		}
		if given := p.republished.get(m); given != nil {
			l.source, l.kept = sourceCache, given.record
			return given.MountResponse, nil
		}
	}
	l.source, l.decrypting = sourceVault, auditEntries(data, entries)
	ctx = transit.WithAudit(ctx, r.auditHeaders(jwt.claims, l.id, l.node))
	plaintext, failed := p.decrypt(ctx, r, from, jwt, data, l.decrypting)
	if failed != nil {
		return nil, failed
	}
	resp, failed := p.files(ctx, r, objects, plaintext)
	if failed == nil && keep {
		if p.audit != nil {
			m.record = string(l.line(nil))
		}
		p.republished.put(m, resp)
	}
	return resp, failed
}

// login returns where the Vault token of a mount comes from. It is shared by the
// mounts that show the very same service account token: those of one pod.
func (p *Provider) login(r *request, jwt ownToken) *watched {
	w := &watched{jwt: jwt.text, metrics: p.metrics}
	source := p.logins.get(p.loginKey(r, jwt.text), jwt.expires, func() *transit.LoginSource {
		return p.vaults[r.VaultAddress].NewLoginSource(transit.Login{
			Namespace: r.VaultNamespace, Mount: r.AuthMount, Role: r.Role,
		})
	})
	w.TokenSource = source.With(w.show)
	return w
}

// watched is the token source of one mount. It remembers what became of the
// last login, as a batch can fail for that, and counts whether one was needed.
type watched struct {
	transit.TokenSource
	jwt     string
	metrics *metrics
	shown   bool
	token   string
	err     error
}

// show is asked for where there is no Vault token at hand.
func (w *watched) show() (string, error) {
	w.shown = true
	return w.jwt, nil
}

func (w *watched) Token(ctx context.Context) (string, error) {
	w.shown = false
	w.token, w.err = w.TokenSource.Token(ctx)
	w.metrics.vaultToken(!w.shown)
	return w.token, w.err
}

// decrypt logs in, where that is needed, and decrypts the entries in one batch. It
// marks those that Vault decrypted.
func (p *Provider) decrypt(ctx context.Context, r *request, from string, jwt ownToken, data map[string][]byte,
	entries []auditEntry) (map[string][]byte, *failure.Error) {
	source := p.login(r, jwt)
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{Data: data[entry.Name], Context: r.Scope.Context(r.pod.namespace, r.Secret, entry.Name)}
	}
	session := p.vaults[r.VaultAddress].Session(r.VaultNamespace, source)
	results, err := session.Decrypt(ctx, r.Key, items)
	switch {
	case source.err != nil:
		return nil, p.loginFailure(r, source.err)
	case errors.Is(err, transit.ErrDenied):
		// The token has the policies that its role had at the login. Whoever mends
		// the role shall not have to wait for the end of the token.
		source.Invalidate(source.token)
	}
	if err != nil {
		return nil, p.decryptFailure(r, err)
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
