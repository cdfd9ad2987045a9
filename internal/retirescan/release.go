package retirescan

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// maxRevisions bounds the Helm revisions of a namespace, and their findings, that are in memory. The texts
// of further ones block their keys.
const maxRevisions = 5_000

// revision is a revision of a Helm release. The zero value means that a Secret has no release.
type revision struct {
	release string
	number  int
}

// releases are the Helm releases of a namespace. Which revisions are older is known only after the last
// Secret of the namespace, because Helm names them so that v10 comes before v2.
type releases struct {
	count   int
	status  map[string]map[int]string // by release and revision
	found   []*releaseFinding
	byKey   map[findingKey]*releaseFinding
	pending int // locations in found
}

type findingKey struct {
	key      ciphertext.Key
	revision revision
}

// releaseFinding has the texts of a revision that decrypt with a key.
type releaseFinding struct {
	Finding
	findingKey
}

// addRelease records the status of a Helm revision. A Secret whose name and labels disagree is no revision,
// so that its texts block their keys.
func (ns *namespace) addRelease(secret *corev1.Secret) revision {
	name, version := secret.Labels["name"], secret.Labels["version"]
	number, err := strconv.Atoi(version)
	if err != nil || number < 1 || name == "" || secret.Labels["owner"] != "helm" ||
		secret.Type != "helm.sh/release.v1" || secret.Name != fmt.Sprintf("sh.helm.release.v1.%s.v%d", name, number) {
		return revision{}
	}
	r := &ns.releases
	if r.count == maxRevisions {
		return revision{}
	}
	r.count++
	if r.status == nil {
		r.status = map[string]map[int]string{}
	}
	if r.status[name] == nil {
		r.status[name] = map[int]string{}
	}
	r.status[name][number] = secret.Labels["status"]
	return revision{name, number}
}

// isOlder reports whether a revision is older than the deployed one and the superseded one before it, to
// which a rollback goes. In doubt it is not.
func (r *releases) isOlder(x revision) bool {
	deployed, before := 0, 0
	for number, status := range r.status[x.release] {
		if status == "deployed" {
			deployed = max(deployed, number)
		}
	}
	for number, status := range r.status[x.release] {
		if status == "superseded" && number < deployed {
			before = max(before, number)
		}
	}
	return x.number > 0 && x.number < before
}

// add records a text that decrypts. It returns false if there are too many.
func (r *releases) add(x revision, f Found) bool {
	key := findingKey{f.Key, x}
	p := r.byKey[key]
	if p == nil {
		if len(r.found) == maxRevisions {
			return false
		}
		if r.byKey == nil {
			r.byKey = map[findingKey]*releaseFinding{}
		}
		p = &releaseFinding{findingKey: key}
		r.byKey[key] = p
		r.found = append(r.found, p)
	}
	if r.pending < maxItems {
		r.pending++
		p.add(f)
	} else {
		p.Count++
	}
	return true
}
