package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/batch"
	"github.com/secretmanager-io/secretmanager/transit"
)

// VerifyResult is the result for one Secret.
type VerifyResult struct {
	Secret  *corev1.Secret
	Entries int
	// Failed are the entries that do not decrypt at their location, and why.
	Failed []EntryError
	// Err is not nil if the result is not known. Failed may be incomplete then.
	Err error
}

// EntryError is the error of an entry that does not decrypt, or of all if Entry is empty.
type EntryError struct {
	Entry string
	Err   error
}

// Verifier verifies many Secrets as [Verify] does, in batches that span them. It keeps at
// most 9 MiB of ciphertext, for any number of Secrets. It is not safe for concurrent use.
type Verifier struct {
	vault  Vault
	report func(VerifyResult)

	batches batch.Batcher[*verifyPart]
	denied  map[batch.Group]error
}

// verifyPart is a Secret with its well-formed entries.
type verifyPart struct {
	result   VerifyResult
	settings ciphertext.Settings
	entries  []string
}

// NewVerifier returns a Verifier that calls report once for every Secret that was added,
// in no particular order, as soon as its result is known.
func NewVerifier(vault Vault, report func(VerifyResult)) *Verifier {
	v := &Verifier{vault: vault, report: report, denied: map[batch.Group]error{}}
	v.batches.Send = v.send
	return v
}

// Add adds a Secret, which the caller must not change until it is reported. The error is
// one that affects all Secrets, such as an unreachable Vault: all waiting Secrets,
// including this one, are reported with it.
func (v *Verifier) Add(ctx context.Context, secret *corev1.Secret) error {
	part := &verifyPart{result: VerifyResult{Secret: secret, Entries: len(secret.Data)}}
	var err error
	if part.settings, err = ciphertext.SettingsOf(secret); err != nil {
		part.fail("", err)
	} else if ciphertext.CheckName(part.settings.Key.Name) != nil {
		err = fmt.Errorf("label %s is not the name of a transit key", ciphertext.LabelTransitKey)
		part.fail("", err)
	} else if len(secret.Data) == 0 {
		part.fail("", errors.New("the Secret has no entries"))
	}
	size := 0
	for _, entry := range ciphertext.Entries(secret.Data) {
		if _, err := ciphertext.Version(secret.Data[entry]); err != nil {
			part.fail(entry, err)
			continue
		}
		part.entries, size = append(part.entries, entry), size+len(secret.Data[entry])
	}
	if err != nil || len(part.entries) == 0 {
		v.report(part.result)
		return nil
	}
	return v.reportRest(v.batches.Add(ctx, batch.GroupOf(part.settings), part, len(part.entries), size))
}

// Flush verifies all waiting Secrets. The error is as for [Verifier.Add].
func (v *Verifier) Flush(ctx context.Context) error { return v.reportRest(v.batches.Flush(ctx)) }

// reportRest reports all waiting Secrets after an error, and returns it.
func (v *Verifier) reportRest(err error) error {
	if err != nil {
		v.reportAll(v.batches.Drain(), err)
	}
	return err
}

// reportAll reports parts. If err is not nil, their result is not known.
func (v *Verifier) reportAll(parts []*verifyPart, err error) {
	for _, part := range parts {
		if err != nil {
			part.result.Err = err
		}
		v.report(part.result)
	}
}

// send verifies a batch and reports its Secrets. The error is one that affects all batches.
func (v *Verifier) send(ctx context.Context, g batch.Group, parts []*verifyPart) error {
	err := v.verify(ctx, g, parts)
	v.reportAll(parts, err)
	return err
}

// verify sends the request for the parts. The error is one that affects all batches.
func (v *Verifier) verify(ctx context.Context, g batch.Group, parts []*verifyPart) error {
	err := v.denied[g]
	var results []transit.Result
	if err == nil {
		var items []transit.Item
		for _, part := range parts {
			items = append(items, itemsOf(part.result.Secret, part.settings, part.entries)...)
		}
		results, err = v.vault.Rewrap(ctx, g.Key, items)
	}
	switch {
	case err == nil:
		for _, part := range parts {
			for i, entry := range part.entries {
				if err := results[i].Err; err != nil {
					part.fail(entry, explain(part.result.Secret, part.settings, entry, err))
				}
			}
			results = results[len(part.entries):]
		}
	case errors.Is(err, transit.ErrNotFound):
		err = transit.WithHint(err, "check the label and annotation that name key and mount, and that this is the right "+
			"Vault and its right namespace")
		for _, part := range parts {
			for _, entry := range part.entries {
				part.fail(entry, err)
			}
		}
	case errors.Is(err, transit.ErrDenied):
		// Further requests with this key would be denied, unlike those with other keys.
		if v.denied[g] == nil {
			v.denied[g] = transit.WithUpdateHint(err, g.Key, transit.OpRewrap)
		}
		for _, part := range parts {
			part.result.Err = v.denied[g]
		}
	default:
		return err
	}
	return nil
}

func (p *verifyPart) fail(entry string, err error) {
	p.result.Failed = append(p.result.Failed, EntryError{entry, err})
}
