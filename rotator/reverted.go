package rotator

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// PutBack is ciphertext that is older than what the rotator wrote in its place:
// somebody applied an old manifest or restored a backup, and will do it again.
type PutBack struct {
	// Back names the entries; the first 1,000. They are rewrapped as others are,
	// or left, but nothing is retired by a run that found any: whatever put them
	// back would then put back what does not open.
	Back      []Left `json:"back,omitempty"`
	BackCount int    `json:"backCount,omitempty"` // all
}

// note takes in an entry, if it was put back.
func (b *PutBack) note(secret *corev1.Secret, ref entryRef, version int) {
	was, err := strconv.Atoi(secret.Annotations[ciphertext.AnnotationRewrapped])
	if err != nil || version >= was {
		return
	}
	b.BackCount++
	if len(b.Back) < maxLeft {
		b.Back = append(b.Back,
			ref.left(
				fmt.Sprintf("is back at key version %d after it was rewrapped to %d: an old manifest was applied "+
					"or a backup restored: rewrap it where it came from (secretmanager rewrap FILE)", version, was)))
	}
}

func (b PutBack) brief() PutBack {
	return PutBack{Back: b.Back[:min(len(b.Back), maxLeftKept)], BackCount: b.BackCount}
}
