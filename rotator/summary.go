package rotator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// forgetAfter is the time after which a key that no run processed counts as no
// longer used. It allows for runs that each process some of the keys, up to a week
// apart.
const forgetAfter = 8 * 24 * time.Hour

// Summary is what the ConfigMaps [StateNames] have of the last scheduled run, and of the last
// one that processed each key. The zero value means that there was no run yet.
type Summary struct {
	Started, Finished time.Time
	Result            Result    // empty if an older version wrote the ConfigMap
	LastDone          time.Time // end of the last run with [ResultDone]; zero if not known
	// Unassigned counts the Secrets that do not name their key and the namespaces
	// that could not be listed.
	Unassigned int
	// NotSelected counts the Secrets whose key is not selected, or not for their namespace.
	NotSelected int
	Keys        []KeySummary // by mount and name, without keys that are no longer used
	Manual      *ManualRun   // the last run that was not scheduled; nil if there was none
}

// KeySummary is the part of a Summary about one key.
type KeySummary struct {
	KeyReport
	Finished time.Time // end of the last scheduled run that processed the key
	// CleanSince is the time since which no entry needs the oldest version that can
	// decrypt. It is zero if an entry does or if that is not known.
	CleanSince time.Time
}

// Counted reports whether the run got as far as counting the entries.
func (k *KeySummary) Counted() bool { return k.Versions != nil }

// OldestDecryptable returns the oldest version that could decrypt after the run.
func (k *KeySummary) OldestDecryptable() int {
	if k.Retire != nil && k.Retire.Done {
		return k.Retire.To
	}
	return k.MinDecryption
}

// FetchSummary reads the ConfigMaps [StateNames] of a namespace. Those that do not exist are skipped: the
// rotator is not installed there. The error wraps that of the API server.
func FetchSummary(ctx context.Context, kube kubernetes.Interface, namespace string) (*Summary, error) {
	names := StateNames()
	state := make([]*corev1.ConfigMap, len(names))
	reads, reading := errgroup.WithContext(ctx)
	for i, name := range names {
		reads.Go(func() error {
			m, err := kube.CoreV1().ConfigMaps(namespace).Get(reading, name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil:
				return fmt.Errorf("%w: check that this identity may get ConfigMap %s", err, name)
			}
			state[i] = m
			return nil
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	return ReadSummary(slices.DeleteFunc(state, func(m *corev1.ConfigMap) bool { return m == nil })...)
}

// ReadSummary reads the ConfigMaps [StateNames], of which some may be missing. Like a run, it
// skips entries that the rotator did not write. It returns an error if the part about the last
// run cannot be parsed.
func ReadSummary(state ...*corev1.ConfigMap) (*Summary, error) {
	var s Summary
	for _, m := range state {
		if text, ok := m.Data[manualEntry]; ok {
			s.Manual = readManual(text)
		}
		if text, ok := m.Data[runEntry]; ok {
			if err := s.readRun(text); err != nil {
				return nil, fmt.Errorf("entry %s of ConfigMap %s/%s was not written by the rotator: %w: remove it, "+
					"and the next run writes it again", runEntry, m.Namespace, m.Name, err)
			}
		}
	}
	for _, m := range state {
		for name, text := range m.Data {
			entry, isReport := strings.CutSuffix(name, reportSuffix)
			stored := keyState{KeyReport: &KeyReport{}}
			if !isReport || json.Unmarshal([]byte(text), &stored) != nil || entry != stateEntry(stored.key()) ||
				s.Finished.Sub(stored.Finished) > forgetAfter {
				continue
			}
			k := KeySummary{KeyReport: *stored.KeyReport, Finished: stored.Finished}
			if e, err := parseEvidence(m.Data[entry]); err == nil {
				k.CleanSince = e.cleanSince(max(k.OldestDecryptable(), 1) + 1)
			}
			s.Keys = append(s.Keys, k)
		}
	}
	slices.SortFunc(s.Keys, func(a, b KeySummary) int { return strings.Compare(a.key().String(), b.key().String()) })
	return &s, nil
}

func (s *Summary) readRun(text string) error {
	last := runState{Report: &Report{}}
	if err := json.Unmarshal([]byte(text), &last); err != nil {
		return err
	}
	s.Started, s.Finished, s.Result = last.Started, last.Finished, last.Result
	s.Unassigned, s.NotSelected = last.Unassigned.Count, last.NotSelected.Count
	if last.LastDone != nil {
		s.LastDone = *last.LastDone
	}
	return nil
}
