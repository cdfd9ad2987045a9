package rotator

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/retirescan"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// search is a search for texts of versions that are due to be retired.
type search struct {
	due     []dueKey
	scanner retirescan.Scanner
	result  retirescan.Result
}

// savedSearch is the JSON text about a search that continues in the next run, because a namespace
// has more texts than a run tries.
type savedSearch struct {
	// Keys has the version up to which each key was searched. A search continues only with the
	// same versions, although newer ones are due meanwhile.
	Keys       map[string]int               `json:"keys"`
	Namespaces map[string]retirescan.Cursor `json:"namespaces"`
}

// maxUnfinished bounds the namespaces in which a search continues. In others it begins again.
const maxUnfinished = 100

// search returns the search that the state has, or nil.
func (s *state) search() *savedSearch {
	var saved savedSearch
	if err := json.Unmarshal([]byte(s.run.Data[searchEntry]), &saved); err != nil || len(saved.Namespaces) == 0 {
		return nil // it begins again
	}
	return &saved
}

// split returns the keys of the saved search that are still due, and the others, which are searched
// separately: they change from night to night. The saved search continues if all its keys are
// still due. Otherwise it begins again, without those that are not.
func (s *savedSearch) split(due []dueKey) (saved, others []dueKey, resume map[string]retirescan.Cursor) {
	if s == nil {
		return nil, due, nil
	}
	for _, d := range due {
		if to := s.Keys[d.k.key().String()]; to > d.k.Retire.From && to <= d.to {
			d.to = to
			saved = append(saved, d)
		} else {
			others = append(others, d)
		}
	}
	if len(saved) == len(s.Keys) {
		resume = s.Namespaces
	}
	return saved, others, resume
}

// search tries every text in any Secret that has one of the versions.
func (r *run) search(ctx context.Context, due []dueKey) (searches []*search, unlisted []Problem) {
	before := r.state.search()
	saved, others, resume := before.split(due)
	r.ownSearch = before == nil || resume != nil
	// The next run continues only where nothing has changed since.
	version := ""
	if first, err := r.kube.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1}); err == nil {
		version = first.ResourceVersion
	}
	if len(saved) > 0 {
		searches = append(searches, r.newSearch(saved, version, resume))
	}
	if len(others) > 0 {
		searches = append(searches, r.newSearch(others, version, nil))
	}
	searched := 0
	var failed error
	unlisted = r.eachSecret(
		ctx,
		area{namespaces: r.Namespaces, selection: secretlist.Selection{}},
		func(s *corev1.Secret) {
			if searched++; searched%100 == 0 {
				r.progress(Progress{Phase: "search", Done: searched})
			}
			for _, one := range searches {
				if failed == nil {
					failed = one.scanner.Add(ctx, s)
				}
			}
		},
	)
	r.progress(Progress{Phase: "search", Done: searched, Total: searched})
	for _, one := range searches {
		if failed == nil {
			one.result, failed = one.scanner.Finish(ctx)
		}
		r.reportSearch(one.result)
		r.Log.Info("searched", "secrets", searched, "keys", len(one.due), "attempts", one.result.Attempts, "undecryptable",
			one.result.Undecryptable.Count, "olderReleases", one.result.OlderReleases.Count)
	}
	if failed != nil {
		unlisted = append(unlisted, Location{}.problem(failure.Stopped, "searching for old ciphertext: %s", failed))
	}
	r.saveSearch(searches)
	return searches, unlisted
}

func (r *run) newSearch(due []dueKey, version string, resume map[string]retirescan.Cursor) *search {
	s := &search{due: due, scanner: retirescan.Scanner{
		Vault: r.vault, ResourceVersion: version, Resume: resume, Budget: r.searchBudget,
		LagFor:   r.lagFor,
		Released: func(namespace, name string) bool { return slices.Contains(r.Release, namespace+"/"+name) },
	}}
	for _, d := range due {
		s.scanner.Keys = append(s.scanner.Keys, retirescan.Key{
			Key: d.k.key(), From: max(d.info.MinDecryptionVersion, 1), To: d.to, Latest: d.info.Latest, Derived: d.info.Derived,
			Namespaces: d.k.rule.namespaces,
		})
	}
	return s
}

// reportSearch adds what a search found, and what prevents nothing, to the report.
func (r *run) reportSearch(found retirescan.Result) {
	for _, f := range found.Undecryptable.Items {
		r.report.Undecryptable.add(Location{f.Namespace, f.Secret, f.Entry}.problem(failure.DecryptFailed,
			"has text of version %d that decrypts with no key that is due%s", f.Version, where(f)))
	}
	r.report.Undecryptable.Count += found.Undecryptable.Count - len(found.Undecryptable.Items)
	for _, f := range found.OlderReleases.Items {
		r.report.OlderReleases.add(problemOf(f))
	}
	r.report.OlderReleases.Count += found.OlderReleases.Count - len(found.OlderReleases.Items)
}

// updateSearch replaces the saved search in the data of the ConfigMap. A manual run, which may process other keys,
// does so only if it continued that search or if none is saved.
func (r *run) updateSearch(data map[string]string) error {
	if !r.Scheduled && !r.ownSearch {
		return nil
	}
	delete(data, searchEntry)
	if r.unfinished == nil {
		return nil
	}
	return setJSON(data, searchEntry, r.unfinished)
}

// saveSearch keeps the first search that is not finished for the state.
func (r *run) saveSearch(searches []*search) {
	for _, s := range searches {
		if len(s.result.Unfinished) == 0 {
			continue
		}
		r.unfinished = &savedSearch{Keys: map[string]int{}, Namespaces: map[string]retirescan.Cursor{}}
		for _, d := range s.due {
			r.unfinished.Keys[d.k.key().String()] = d.to
		}
		namespaces := slices.Sorted(maps.Keys(s.result.Unfinished))
		for _, ns := range namespaces[:min(len(namespaces), maxUnfinished)] {
			r.unfinished.Namespaces[ns] = s.result.Unfinished[ns]
		}
		return
	}
}
