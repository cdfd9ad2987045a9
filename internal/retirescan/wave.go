package retirescan

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/ciphertextscan"
	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// maxWaiting bounds the bytes of texts that wait.
	maxWaiting = 4 << 20
	// overhead is about what a waiting text takes in memory besides itself.
	overhead = 512
	// A request has at most maxBatchItems texts and maxBatchBytes bytes, and a known text. Package transit
	// decides each item of 100, even if the request fails because of each, and splits a request of 1 MiB.
	maxBatchItems = 99
	maxBatchBytes = 1<<20 - maxKnown
	maxKnown      = 64 << 10
	// maxTried bounds the attempts that are remembered.
	maxTried = 1 << 17
	// maxEntries bounds the entries at whose locations a text in an annotation is tried.
	maxEntries = 20
	// retryFor bounds how long attempts without evidence are repeated. It is longer than a standby server
	// lags behind.
	retryFor = 30 * time.Second
)

// text is a text that waits.
type text struct {
	ns       *namespace
	data     []byte
	contexts [][]byte // for derived keys
	keys     []int    // with which it is tried, in this order
	next     int      // the next one in keys
	found    Found
	labeled  int // the key that the label names if the text is a whole entry, or -1
	revision revision
	decrypts bool
	untried  bool // an attempt gave no evidence
}

func (t *text) size() int {
	n := len(t.data) + overhead
	for _, c := range t.contexts {
		n += len(c)
	}
	return n
}

// newText returns a text with the keys and contexts with which it is tried. The label of the Secret names
// the key at the index, or -1.
func (s *Scanner) newText(secret *corev1.Secret, labeled int, r revision, found ciphertextscan.Text) *text {
	t := &text{ns: s.current, data: []byte(found.Ciphertext), labeled: -1, found: Found{Version: found.Version,
		Namespace: secret.Namespace, Secret: secret.Name, Entry: found.Name, InRelease: found.InRelease}}
	locations := found.Locations
	if found.Annotation {
		t.found.Entry, t.found.Annotation = "", found.Name
		for _, entry := range firstEntries(secret) {
			locations = append(locations, ciphertextscan.Location{Namespace: secret.Namespace, Name: secret.Name,
				Entry: entry})
		}
	} else {
		locations = append(locations, ciphertextscan.Location{Namespace: secret.Namespace, Name: secret.Name,
			Entry: found.Name})
		if string(secret.Data[found.Name]) == found.Ciphertext {
			t.labeled = labeled
		}
	}
	if found.InRelease {
		t.revision = r
	}
	t.add(ciphertext.Cluster, ciphertextscan.Location{})
	t.add(ciphertext.Namespace, ciphertextscan.Location{Namespace: secret.Namespace})
	for _, l := range locations {
		t.add(ciphertext.Strict, l)
		t.add(ciphertext.Namespace, l)
	}
	t.keys = s.order(labeled, secret.Namespace, found.Version)
	return t
}

// add adds the context of a scope at a location.
func (t *text) add(scope ciphertext.Scope, l ciphertextscan.Location) {
	c := scope.Context(l.Namespace, l.Name, l.Entry)
	if !slices.ContainsFunc(t.contexts, func(x []byte) bool { return string(x) == string(c) }) {
		t.contexts = append(t.contexts, c)
	}
}

// firstEntries returns the names of the first entries.
func firstEntries(secret *corev1.Secret) []string {
	names := ciphertext.Entries(secret.Data)
	return names[:min(len(names), maxEntries)]
}

// order returns the keys to try: that of the label, those that are bound to the namespace, the others. That
// of the label is tried even if it keeps the version: then the text needs no other key.
func (s *Scanner) order(labeled int, namespace string, version int) (keys []int) {
	var others []int
	for i, k := range s.Keys {
		switch {
		case !k.eligible(version) || i == labeled:
		case k.bound(namespace):
			keys = append(keys, i)
		default:
			others = append(others, i)
		}
	}
	if labeled >= 0 {
		keys = slices.Insert(keys, 0, labeled)
	}
	return append(keys, others...)
}

// cost is the largest number of attempts for a text.
func (s *Scanner) cost(t *text) (n int) {
	for _, i := range t.keys {
		n += len(s.contexts(t, i))
	}
	return n
}

// contexts returns those with which a text is tried.
func (s *Scanner) contexts(t *text, key int) [][]byte {
	if s.Keys[key].Derived {
		return t.contexts
	}
	return [][]byte{nil}
}

// wait adds to the bytes that wait, and tries everything if they are too many.
func (s *Scanner) wait(ctx context.Context, bytes int) {
	if s.waiting += bytes; s.waiting > maxWaiting {
		s.flush(ctx)
	}
}

// flush tries all texts that wait. Each is tried with one key after the other, until one decrypts it.
func (s *Scanner) flush(ctx context.Context) {
	wave, verify := s.wave, s.verify
	s.wave, s.verify, s.waiting = nil, map[int][]transit.Item{}, 0
	for _, key := range slices.Sorted(maps.Keys(verify)) {
		s.countVerified(ctx, key, verify[key])
	}
	for open := wave; len(open) > 0; {
		attempts := map[int][]attempt{}
		var rest []*text
		for _, t := range open {
			if t.decrypts || t.next == len(t.keys) {
				s.record(t)
				continue
			}
			key := t.keys[t.next]
			t.next++
			rest = append(rest, t)
			for _, c := range s.contexts(t, key) {
				attempts[key] = append(attempts[key], attempt{t, c})
			}
		}
		for _, key := range slices.Sorted(maps.Keys(attempts)) {
			s.try(ctx, key, attempts[key])
		}
		open = rest
	}
	for _, ns := range s.open {
		ns.reserved = 0
	}
	if err := context.Cause(ctx); err != nil {
		s.err = err
		return
	}
	s.settle()
}

// record adds a text to the result after the last attempt.
func (s *Scanner) record(t *text) {
	switch key, ok := s.index[t.found.Key]; {
	case ok && !s.Keys[key].eligible(t.found.Version): // the key keeps the version
	case t.decrypts && s.Released != nil && s.Released(t.found.Namespace, t.found.Secret):
		s.result.Released.add(t.found)
	case t.decrypts && t.revision.number > 0 && t.ns.releases.add(t.revision, t.found):
	case t.decrypts:
		f := s.result.InUse[t.found.Key]
		f.add(t.found)
		s.result.InUse[t.found.Key] = f
	case !t.untried:
		s.result.Undecryptable.add(t.found)
	}
}

// attempt is a text with a context.
type attempt struct {
	text    *text
	context []byte
}

type digest [16]byte

// digest identifies an attempt with a key.
func (a attempt) digest(key int) (d digest) {
	h := sha256.New()
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:], uint64(key))
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(a.context)))
	h.Write(lengths[:])
	h.Write(a.context)
	h.Write(a.text.data)
	copy(d[:], h.Sum(nil))
	return d
}

// try makes attempts with a key, each once.
func (s *Scanner) try(ctx context.Context, key int, attempts []attempt) {
	same := map[digest][]*text{} // the texts of each attempt in the batch
	var batch []attempt
	bytes := 0
	send := func() {
		results, err := s.decryptable(ctx, key, batch)
		for i, a := range batch {
			d := a.digest(key)
			for _, t := range same[d] {
				t.untried = t.untried || err != nil
				if err == nil && results[i] {
					s.decrypted(t, key)
				}
			}
			if err == nil {
				s.remember(d, results[i])
			}
		}
		clear(same)
		batch, bytes = nil, 0
	}
	for _, a := range attempts {
		d := a.digest(key)
		if decrypts, ok := s.tried[d]; ok {
			if decrypts {
				s.decrypted(a.text, key)
			}
			continue
		}
		if len(batch) > 0 && same[d] == nil && (len(batch) == maxBatchItems || bytes+len(a.text.data) > maxBatchBytes) {
			send()
		}
		if same[d] = append(same[d], a.text); len(same[d]) > 1 {
			continue
		}
		batch, bytes = append(batch, a), bytes+len(a.text.data)
	}
	if len(batch) > 0 {
		send()
	}
}

// decrypted records that the key decrypts a text.
func (s *Scanner) decrypted(t *text, key int) {
	t.decrypts, t.found.Key, t.found.Labeled = true, s.Keys[key].Key, t.labeled == key
	if s.Keys[key].eligible(t.found.Version) {
		t.ns.found |= s.bit(key)
	}
}

// remember keeps the outcome of an attempt. If there are too many, old ones are made again.
func (s *Scanner) remember(d digest, decrypts bool) {
	if len(s.tried) >= maxTried {
		clear(s.tried)
	}
	s.tried[d] = decrypts
}

var errNoEvidence = errors.New("whether texts decrypt with the key is not known")

// decryptable reports for each attempt whether the key decrypts the text. If Vault gives no evidence, the key
// has an error from then on, and no more attempts are made with it.
func (s *Scanner) decryptable(ctx context.Context, key int, batch []attempt) ([]bool, error) {
	k := s.Keys[key]
	if s.result.Errors[k.Key] != nil || ctx.Err() != nil {
		return nil, errNoEvidence
	}
	s.result.Attempts += len(batch)
	todo := make([]int, len(batch))
	for i, a := range batch {
		a.text.ns.used++
		todo[i] = i
	}
	results := make([]bool, len(batch))
	err := retry.Do(ctx, retryFor, func() *retry.Failure {
		items := make([]transit.Item, len(todo))
		for i, n := range todo {
			items[i] = transit.Item{Data: batch[n].text.data, Context: batch[n].context}
		}
		known, ok := s.known[key]
		if ok {
			items = append(items, known)
		}
		errs, err := transit.Decryptable(ctx, s.Vault, k.Key, items)
		if err != nil {
			return &retry.Failure{Err: err, Final: true} // the client has repeated the request
		}
		if ok && errs[len(todo)] != nil {
			return &retry.Failure{Err: fmt.Errorf("%w: a text that decrypted before does not: %w", errNoEvidence,
				errs[len(todo)])}
		}
		var again []int
		for i, n := range todo {
			results[n] = errs[i] == nil
			// What Vault says about a version that is not retired, or does not exist, does not matter.
			if errs[i] != nil && !transit.IsUndecryptable(errs[i]) && k.eligible(batch[n].text.found.Version) {
				again, err = append(again, n), errs[i]
			}
		}
		if todo = again; len(todo) > 0 {
			return &retry.Failure{Err: fmt.Errorf("%w: %w", errNoEvidence, err)}
		}
		return nil
	})
	if err != nil {
		s.result.Errors[k.Key] = transit.WithUpdateHint(err, k.Key, transit.OpRewrap)
	}
	return results, err
}

// countVerified counts the entries of labeled Secrets that decrypt. An entry that does not is no error of
// the key: anyone may write one.
func (s *Scanner) countVerified(ctx context.Context, key int, items []transit.Item) {
	k := s.Keys[key].Key
	for chunk := range slices.Chunk(items, maxBatchItems+1) {
		if s.result.Errors[k] != nil || ctx.Err() != nil {
			return
		}
		if err := s.verifyChunk(ctx, key, chunk); err != nil {
			s.result.Errors[k] = transit.WithUpdateHint(err, k, transit.OpRewrap)
			return
		}
	}
}

// verifyChunk counts the items that decrypt. It repeats those of which a server does not have the version,
// although the key has it: the server lags behind.
func (s *Scanner) verifyChunk(ctx context.Context, key int, items []transit.Item) (failed error) {
	k := s.Keys[key]
	var lagged time.Time                    // when a server was first seen to lag behind
	limit := max(s.LagFor, time.Nanosecond) // 0 would mean none
	_ = retry.Do(ctx, limit, func() *retry.Failure {
		errs, err := transit.Decryptable(ctx, s.Vault, k.Key, items)
		if err != nil {
			failed = err
			return &retry.Failure{Err: err, Final: true}
		}
		var again []transit.Item
		for i, e := range errs {
			if e == nil {
				s.result.Verified[k.Key]++
				if _, ok := s.known[key]; !ok && len(items[i].Data) <= maxKnown {
					s.known[key] = items[i]
				}
			} else if version, parseErr := ciphertext.Version(items[i].Data); errors.Is(e, transit.ErrTooNew) &&
				parseErr == nil && version <= k.Latest {
				again, err = append(again, items[i]), e
			}
		}
		if items = again; len(items) > 0 {
			if lagged.IsZero() {
				lagged = time.Now()
			}
			return &retry.Failure{Err: err}
		}
		return nil
	})
	if !lagged.IsZero() {
		s.LagFor -= time.Since(lagged)
	}
	return failed
}
