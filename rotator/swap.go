package rotator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// maxTries is how often a write is tried that others keep getting in before.
const maxTries = 5

const reasonImmutable = "the Secret is immutable: delete it and create it again"

// swapper writes rewrapped entries by compare-and-swap.
type swapper struct {
	vault    *transit.Session
	kube     kubernetes.Interface
	patience *patience
	managed  bool // whether it writes what a GitOps tool keeps
}

func newSwapper(vault *transit.Session, kube kubernetes.Interface, managed bool) swapper {
	return swapper{vault: vault, kube: kube, managed: managed, patience: &patience{limit: retryKube}}
}

// swap puts the results for a part into its Secret. If somebody changed one of
// its old values meanwhile, or replaced the Secret, it reads the Secret again and
// rewraps what is there now. It returns the entries that it wrote and those that
// are left; entries that need nothing any more are in neither.
func (w swapper) swap(ctx context.Context, p part, target int, results []transit.Result) (done []string, left []Left) {
	key := keyOf(p.set)
	for try := 1; ; try++ {
		left = nil
		fresh := map[string][]byte{}
		for i, r := range results {
			if r.Err != nil {
				left = append(left, p.ref(i).left(itemReason(p, p.entries[i], r.Err)))
				continue
			}
			fresh[p.entries[i]] = r.Data
		}
		if len(fresh) == 0 {
			return nil, left
		}
		rest := func(reason string) []Left {
			for _, entry := range ciphertext.Entries(fresh) {
				left = append(left, entryRef{p.secret.Namespace, p.secret.Name, entry}.left(reason))
			}
			return left
		}
		secrets := w.kube.CoreV1().Secrets(p.secret.Namespace)
		patch, err := rewrapPatch(p.secret, fresh)
		if err == nil {
			// The tests in it make it safe to send twice.
			err = w.patience.try(ctx, transientWrite, func() error {
				_, err := secrets.Patch(ctx, p.secret.Name, types.JSONPatchType, patch, metav1.PatchOptions{})
				return err
			})
		}
		switch {
		case err == nil:
			return ciphertext.Entries(fresh), left
		case !conflict(err):
			return nil, rest(fmt.Sprintf("writing the Secret: %s: check that this identity may patch it", err))
		case try == maxTries:
			return nil, rest(fmt.Sprintf("others changed the Secret each of the %d times that it was to be written", maxTries))
		}
		var now *corev1.Secret
		getErr := w.patience.try(ctx, transientRead, func() (err error) {
			now, err = secrets.Get(ctx, p.secret.Name, metav1.GetOptions{})
			return err
		})
		switch {
		case apierrors.IsNotFound(getErr):
			return nil, nil // deleted: there is nothing left to rewrap
		case getErr != nil:
			return nil, rest(fmt.Sprintf("reading the Secret again: %s", getErr))
		case now.UID == p.secret.UID && holds(now, fresh):
			return ciphertext.Entries(fresh), left // it took, only the answer was lost
		case now.UID == p.secret.UID && now.ResourceVersion == p.secret.ResourceVersion:
			// Nobody was in the way: the API server refuses it for what it is.
			return nil, rest(fmt.Sprintf("writing the Secret: %s: check what admits Secrets in namespace %s", err, p.secret.Namespace))
		}
		set, err := ciphertext.SettingsOf(now)
		p = part{secret: now, set: set}
		if p.entries, _ = below(now, target); len(p.entries) == 0 {
			return nil, nil // somebody else has done it
		}
		switch {
		case err != nil:
			return nil, p.left("it was changed meanwhile and is malformed now: " + err.Error())
		case keyOf(set) != key:
			return nil, p.left("it was changed meanwhile to another key, " + keyOf(set).String() + ": run again")
		case immutable(now):
			return nil, p.left(reasonImmutable)
		case !w.managed && ciphertext.ManagedBy(now) != "":
			return nil, p.left("it was changed meanwhile and is kept by " + ciphertext.ManagedBy(now) + " now: run secretmanager rewrap on the manifest in Git, or give --include-managed")
		}
		if results, err = w.vault.Rewrap(ctx, key, p.items()); err != nil {
			return nil, p.left(err.Error())
		}
	}
}

// itemReason says what to make of Vault's refusal of an entry.
func itemReason(p part, entry string, err error) string {
	switch {
	case errors.Is(err, transit.ErrMismatch):
		return fmt.Sprintf("%s: it was not made with key %s for %s (scope %s): it may have been copied from elsewhere: encrypt the value again",
			err, keyOf(p.set), p.set.Scope.Place(p.secret.Namespace, p.secret.Name, entry), p.set.Scope)
	case errors.Is(err, transit.ErrTooOld):
		return fmt.Sprintf("%s: it was put back after the last retirement, as from a backup or from Git: encrypt the value again, or lower min_decryption_version of %s to rescue it", err, keyOf(p.set))
	}
	return err.Error()
}

// conflict reports whether a patch failed as it does when somebody else was
// faster: to a failed test the API server answers 422 without saying so.
func conflict(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err)
}

// holds is whether the entries of a Secret are these.
func holds(s *corev1.Secret, entries map[string][]byte) bool {
	for entry, text := range entries {
		if !bytes.Equal(s.Data[entry], text) {
			return false
		}
	}
	return true
}

type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// rewrapPatch replaces entries if the Secret is still the same object and the
// entries are as they were read, and keeps the version hint and the note of what
// was rewrapped current.
func rewrapPatch(s *corev1.Secret, fresh map[string][]byte) ([]byte, error) {
	ops := []patchOp{{"test", "/metadata/uid", s.UID}}
	merged := make(map[string][]byte, len(s.Data))
	for entry, text := range s.Data {
		merged[entry] = text
	}
	for _, entry := range ciphertext.Entries(fresh) {
		path := "/data/" + escape(entry)
		ops = append(ops, patchOp{"test", path, s.Data[entry]}, patchOp{"replace", path, fresh[entry]})
		merged[entry] = fresh[entry]
	}
	oldest, _, _ := ciphertext.Versions(merged)
	hint := fmt.Sprint(oldest)
	if s.Labels[ciphertext.LabelKeyVersion] != hint {
		ops = append(ops, patchOp{"add", "/metadata/labels/" + escape(ciphertext.LabelKeyVersion), hint})
	}
	return json.Marshal(append(ops, rewrappedOps(s, hint)...))
}

// escape makes a name one part of a JSON pointer.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
