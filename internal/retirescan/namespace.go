package retirescan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// namespace is what the scan knows about a namespace until all its texts have been tried.
type namespace struct {
	name           string
	resume         Cursor // zero if the scan of the namespace begins
	used, reserved int    // attempts that were made, and that the waiting texts may need
	exhausted      bool
	damaged        bool   // it has a Secret that could not be searched
	cursor         Cursor // where the budget was exhausted
	found          uint64 // keys that an earlier run or this one found in use, by Scanner.bit
	releases       releases
	releaseBytes   int // that may still be decompressed
}

// maxReleaseBytes bounds the time for the Helm releases of a namespace: they may be a thousand times as long
// as the Secrets that have them.
const maxReleaseBytes = 1 << 30

// enter makes the namespace the current one.
func (s *Scanner) enter(name string) {
	if s.current != nil && s.current.name == name {
		return
	}
	s.current = &namespace{name: name, releaseBytes: maxReleaseBytes}
	s.open = append(s.open, s.current)
	if resume, ok := s.Resume[name]; ok && resume.valid(s.ResourceVersion, s.keysDigest) {
		s.current.resume, s.current.found = resume, resume.Found
	}
}

// isTried reports whether an earlier run has tried the n-th text of a Secret, which has not changed since.
func (ns *namespace) isTried(secret *corev1.Secret, n int) bool {
	version, ok := parseVersion(secret.ResourceVersion)
	if !ok || version > ns.resume.ResourceVersion {
		return false
	}
	return secret.Name < ns.resume.Secret || secret.Name == ns.resume.Secret && n < ns.resume.Offset
}

// bit returns the bit of a key in a set. Keys share bits if there are more than 64.
func (s *Scanner) bit(key int) uint64 { return 1 << (key % 64) }

// settle decides what the namespaces whose texts have been tried mean for the keys.
func (s *Scanner) settle() {
	var open []*namespace
	for _, ns := range s.open {
		if ns == s.current {
			open = append(open, ns)
			continue
		}
		for _, p := range ns.releases.found {
			s.settleRelease(ns, p)
		}
		if ns.exhausted {
			ns.cursor.Found = ns.found
			s.result.Unfinished[ns.name] = ns.cursor
		}
		for i, k := range s.Keys {
			if (ns.exhausted || ns.damaged) && k.usable(ns.name) || ns.resume.Found&s.bit(i) != 0 {
				s.delay(k, ns.name)
			}
		}
	}
	s.open = open
}

func (s *Scanner) delay(k Key, name string) {
	if all := s.result.Delayed[k.Key]; len(all) < maxItems && !slices.Contains(all, name) {
		s.result.Delayed[k.Key] = append(all, name)
	}
}

// settleRelease records texts in a Helm release that decrypt.
func (s *Scanner) settleRelease(ns *namespace, p *releaseFinding) {
	if ns.releases.isOlder(p.revision) {
		s.result.OlderReleases.Count += p.Count - len(p.Items)
		for _, x := range p.Items {
			s.result.OlderReleases.add(x)
		}
		return
	}
	f := s.result.InUse[p.key]
	f.Count += p.Count - len(p.Items)
	for _, x := range p.Items {
		f.add(x)
	}
	s.result.InUse[p.key] = f
}
