package rotator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// forgetAfter is how long after the last look at a key a run may end before the
// key counts as one that is not used any more. Runs that each look after some of
// the keys, as much as a week apart, stay below it.
const forgetAfter = 8 * 24 * time.Hour

// Summary is what the ConfigMap [StateName] says of the last run, and of the last
// look at each key. Its zero value is that there was no run yet.
type Summary struct {
	Started, Finished time.Time
	Result            Result    // empty: a version wrote it that did not say
	LastDone          time.Time // end of the last run that had [ResultDone]; zero if none is known
	// Unassigned counts what could not be told to belong to a key: Secrets with
	// malformed settings, namespaces that could not be listed.
	Unassigned int
	Keys       []KeySummary // by mount and name, without those that are not used any more
}

// KeySummary is the part of one key.
type KeySummary struct {
	KeyReport
	Finished time.Time // end of the last run that looked at it
	// CleanSince is since when no entry needs the oldest version that still opens, and
	// RetiredSince since when the oldest one that is not trimmed is refused. Zero if
	// that is not so, or not known.
	CleanSince, RetiredSince time.Time
}

// Verified is whether the run came so far that it counted the entries.
func (k *KeySummary) Verified() bool { return k.Versions != nil }

// Opens is the oldest version that opens since the run.
func (k *KeySummary) Opens() int {
	if k.Retire != nil && k.Retire.Done {
		return k.Retire.To
	}
	return k.MinDecryption
}

// ReadSummary reads the ConfigMap. An entry that is not the rotator's is passed over,
// as by a run; one about the run as a whole that cannot be read is an error.
func ReadSummary(m *corev1.ConfigMap) (*Summary, error) {
	var s Summary
	if text, ok := m.Data[runEntry]; ok {
		last := runState{Report: &Report{}}
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			return nil,
				fmt.Errorf("entry %s of ConfigMap %s/%s is not what a run of the rotator wrote: %w: remove it, "+
					"the next run writes it anew", runEntry, m.Namespace, m.Name, err)
		}
		s.Started, s.Finished, s.Result, s.Unassigned = last.Started, last.Finished, last.Result, last.LeftCount
		if last.LastDone != nil {
			s.LastDone = *last.LastDone
		}
	}
	for entry, text := range m.Data {
		stored := keyState{KeyReport: &KeyReport{}}
		if err := json.Unmarshal([]byte(text), &stored); err != nil || entry != stateEntry(stored.key()) {
			continue
		}
		if s.Finished.Sub(stored.Finished) > forgetAfter {
			continue
		}
		k := KeySummary{KeyReport: *stored.KeyReport, Finished: stored.Finished}
		k.CleanSince = stored.CleanSince[max(k.Opens(), 1)+1]
		trimmed := k.MinAvailable
		if k.Trim != nil && k.Trim.Done {
			trimmed = k.Trim.To
		}
		k.RetiredSince = stored.Refused[max(trimmed, 1)+1]
		s.Keys = append(s.Keys, k)
	}
	slices.SortFunc(s.Keys, func(a, b KeySummary) int { return strings.Compare(a.key().String(), b.key().String()) })
	return &s, nil
}
