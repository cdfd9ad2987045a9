package secretmanager

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Entries of several Secrets share a request, as far as fits one; package transit
// splits the longer ones. So much ciphertext waits for others of its key at most.
const (
	proofItems   = 100
	proofBytes   = 1 << 20
	proofWaiting = 8 << 20
)

// Proof is what was found out about one Secret.
type Proof struct {
	Secret  *corev1.Secret
	Entries int
	// Failed are the entries that do not open where they are, and why.
	Failed []EntryError
	// Err is why it could not be found out; then Failed is not all.
	Err error
}

// EntryError is why an entry does not open; without an entry, why none does.
type EntryError struct {
	Entry string
	Err   error
}

// Prover does what [Prove] does with many Secrets, in batches that span them. It
// keeps some megabytes of ciphertext at most, however many there are. It is not
// safe for concurrent use.
type Prover struct {
	vault *transit.Session
	done  func(Proof)

	open    map[proofGroup]*proofBatch
	waiting int // bytes in all of them
	denied  map[proofGroup]error
}

// proofGroup is what may share a request: Vault wants a context for every item
// or for none.
type proofGroup struct {
	key   transit.Key
	bound bool
}

type proofBatch struct {
	parts []*proofPart
	items int
	bytes int
}

// proofPart is a Secret with its well-formed entries.
type proofPart struct {
	proof   Proof
	set     ciphertext.Settings
	entries []string
}

// NewProver returns a Prover that calls done once for every Secret that was
// added, in no order, as soon as it is known.
func NewProver(vault *transit.Session, done func(Proof)) *Prover {
	return &Prover{vault: vault, done: done, open: map[proofGroup]*proofBatch{}, denied: map[proofGroup]error{}}
}

// Add takes up a Secret, which belongs to the Prover until done is called. The
// error is one that all others would meet too, as when Vault cannot be reached:
// what waits then, this Secret included, is done with that error.
func (p *Prover) Add(ctx context.Context, secret *corev1.Secret) error {
	part := &proofPart{proof: Proof{Secret: secret, Entries: len(secret.Data)}}
	fails := func(entry string, err error) { part.proof.Failed = append(part.proof.Failed, EntryError{entry, err}) }
	var err error
	if part.set, err = ciphertext.SettingsOf(secret); err != nil {
		fails("", err)
	} else if ciphertext.CheckName(part.set.Key) != nil {
		err = fmt.Errorf("label %s is not the name of a transit key", ciphertext.LabelTransitKey)
		fails("", err)
	} else if len(secret.Data) == 0 {
		fails("", errors.New("it has no entries"))
	}
	size := 0
	for _, entry := range ciphertext.Entries(secret.Data) {
		if _, err := ciphertext.Version(secret.Data[entry]); err != nil {
			fails(entry, err)
			continue
		}
		part.entries, size = append(part.entries, entry), size+len(secret.Data[entry])
	}
	if err != nil || len(part.entries) == 0 {
		p.done(part.proof)
		return nil
	}
	g := proofGroup{keyOf(part.set), part.set.Scope != ciphertext.None}
	b := p.open[g]
	if b != nil && (b.items+len(part.entries) > proofItems || b.bytes+size > proofBytes) {
		if err := p.send(ctx, g); err != nil {
			part.proof.Err = err
			p.done(part.proof)
			return err
		}
		b = nil
	}
	if b == nil {
		b = &proofBatch{}
		p.open[g] = b
	}
	b.parts, b.items, b.bytes = append(b.parts, part), b.items+len(part.entries), b.bytes+size
	if p.waiting += size; p.waiting > proofWaiting {
		return p.Flush(ctx)
	}
	return nil
}

// Flush sends what waits.
func (p *Prover) Flush(ctx context.Context) error {
	for g := range p.open {
		if err := p.send(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// send has Vault rewrap a batch, and throws the result away.
func (p *Prover) send(ctx context.Context, g proofGroup) error {
	b := p.open[g]
	delete(p.open, g)
	p.waiting -= b.bytes
	err := p.prove(ctx, g, b.parts)
	for _, part := range b.parts {
		if err != nil && part.proof.Err == nil {
			part.proof.Err = err
		}
		p.done(part.proof)
	}
	if err == nil {
		return nil
	}
	for g, b := range p.open {
		for _, part := range b.parts {
			part.proof.Err = err
			p.done(part.proof)
		}
		delete(p.open, g)
	}
	return err
}

// prove asks about the parts. The error is one that ends it all.
func (p *Prover) prove(ctx context.Context, g proofGroup, parts []*proofPart) error {
	err := p.denied[g]
	var results []transit.Result
	if err == nil {
		var items []transit.Item
		for _, part := range parts {
			items = append(items, itemsOf(part.proof.Secret, part.set, part.entries)...)
		}
		results, err = p.vault.Rewrap(ctx, g.key, items)
	}
	switch {
	case err == nil:
		for _, part := range parts {
			part.judge(results[:len(part.entries)])
			results = results[len(part.entries):]
		}
	case errors.Is(err, transit.ErrNotFound):
		err = withHint(err, "check the label and annotation that name key and mount, and that this is the right Vault and its right namespace")
		for _, part := range parts {
			part.fail(err)
		}
	case errors.Is(err, transit.ErrDenied):
		// The next request with this key would meet it too, one with another may not.
		if p.denied[g] == nil {
			p.denied[g] = withHint(err, fmt.Sprintf("check that the policy has update on %s/rewrap/%s", g.key.Mount, g.key.Name))
		}
		for _, part := range parts {
			part.proof.Err = p.denied[g]
		}
	case !perhapsOneItem(err):
		return err
	case len(parts) > 1 || len(parts[0].entries) > 1:
		return p.apart(ctx, g, parts)
	default:
		parts[0].fail(err)
	}
	return nil
}

// perhapsOneItem is whether a request may have failed for something in it,
// rather than for whoever makes it or the state of Vault.
func perhapsOneItem(err error) bool {
	var e *transit.Error
	return errors.As(err, &e) && !e.Transient && (e.Status == http.StatusBadRequest || e.Status >= http.StatusInternalServerError)
}

// apart asks about Secrets one by one, and about the entries of a single one.
func (p *Prover) apart(ctx context.Context, g proofGroup, parts []*proofPart) error {
	if len(parts) > 1 {
		for _, part := range parts {
			if err := p.prove(ctx, g, []*proofPart{part}); err != nil {
				return err
			}
		}
		return nil
	}
	whole := parts[0]
	for _, entry := range whole.entries {
		single := &proofPart{proof: Proof{Secret: whole.proof.Secret}, set: whole.set, entries: []string{entry}}
		err := p.prove(ctx, g, []*proofPart{single})
		whole.proof.Failed = append(whole.proof.Failed, single.proof.Failed...)
		if whole.proof.Err == nil {
			whole.proof.Err = single.proof.Err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *proofPart) judge(results []transit.Result) {
	for i, r := range results {
		if r.Err != nil {
			p.proof.Failed = append(p.proof.Failed, EntryError{p.entries[i], whyNot(p.proof.Secret, p.set, p.entries[i], r.Err)})
		}
	}
}

func (p *proofPart) fail(err error) {
	for _, entry := range p.entries {
		p.proof.Failed = append(p.proof.Failed, EntryError{entry, err})
	}
}
