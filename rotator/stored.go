package rotator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxStored bounds the data of a ConfigMap, of which the API server accepts 1 MiB.
	maxStored = 900 << 10
	// maxStoredVersions bounds the versions of which the stored report of a key has the count.
	maxStoredVersions = 20
	// maxStoredText bounds a text of a stored report, in bytes.
	maxStoredText = 500
)

// addReports adds the reports of keys to the data of a ConfigMap, with as many problems as fit.
// Reports that do not fit without any problem are left out.
func addReports(data map[string]string, keys []*keyRun, finished time.Time) error {
	for _, k := range keys {
		delete(data, stateEntry(k.key())+reportSuffix)
	}
	others := size(data)
	for _, problems := range []int{10, 3, 0} {
		total := others
		for _, k := range keys {
			entry := stateEntry(k.key()) + reportSuffix
			if err := setJSON(data, entry, keyState{k.stored(problems), finished}); err != nil {
				return err
			}
			if total += len(entry) + len(data[entry]); total <= maxStored {
				continue
			}
			if problems > 0 {
				break
			}
			total -= len(entry) + len(data[entry])
			delete(data, entry)
		}
		if total <= maxStored {
			return nil
		}
	}
	return nil
}

func size(data map[string]string) (n int) {
	for name, text := range data {
		n += len(name) + len(text)
	}
	return n
}

func setJSON(data map[string]string, entry string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	data[entry] = string(text)
	return nil
}

// stored returns a short copy of the report that names some problems.
func (k *KeyReport) stored(problems int) *KeyReport {
	short := *k
	short.Unresolved, short.Reverted = k.Unresolved.stored(problems), k.Reverted.stored(problems)
	limit := maxStoredText
	if problems == 0 {
		limit /= 5
	}
	short.Error, short.RotateReason = shorten(k.Error, limit), shorten(k.RotateReason, limit)
	if k.Retire != nil {
		retire := *k.Retire
		retire.Reason = shorten(retire.Reason, limit)
		retire.WouldBreak = Problems{Items: retire.WouldBreak}.stored(problems).Items
		retire.Released = Problems{Items: retire.Released}.stored(problems).Items
		short.Retire = &retire
	}
	if problems == 0 {
		short.RotateReason = ""
	}
	if problems == 0 || len(k.Versions) > maxStoredVersions {
		short.Versions = k.shortVersions()
	}
	return &short
}

// shortVersions returns the counts of the versions with two versions at most: the oldest one
// counts for all below the target, and the newest one for all others.
func (k *KeyReport) shortVersions() map[int]int {
	if k.Versions == nil {
		return nil
	}
	oldest, newest := 0, 0
	for v := range k.Versions {
		if oldest == 0 || v < oldest {
			oldest = v
		}
		newest = max(newest, v)
	}
	short := map[int]int{}
	for v, count := range k.Versions {
		if v >= k.Target {
			v = newest
		} else {
			v = oldest
		}
		short[v] += count
	}
	return short
}

// stored returns the problems with at most n of them, shortened.
func (p Problems) stored(n int) Problems {
	short := Problems{Count: p.Count, Items: slices.Clone(p.Items[:min(len(p.Items), n)])}
	for i := range short.Items {
		short.Items[i].Reason = shorten(short.Items[i].Reason, maxStoredText)
	}
	return short
}

// shorten returns at most limit bytes of a text.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len("…")], "") + "…"
}
