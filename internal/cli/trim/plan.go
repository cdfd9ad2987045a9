package trim

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/ciphertextscan"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// maxLocations bounds how many locations a list names. All texts are counted.
const maxLocations = 1000

// plan is what is deleted, and what was found. Its JSON is stable: fields are added and
// never renamed.
type plan struct {
	Mount         string `json:"mount"`
	Name          string `json:"name"`
	From          int    `json:"from"` // oldest version that is deleted
	To            int    `json:"to"`   // oldest version that is kept
	MinDecryption int    `json:"minDecryptionVersion"`
	Latest        int    `json:"latestVersion"`
	Secrets       int    `json:"secrets"` // that were searched
	// Blocking has the texts in Secrets with the label of the key. If there are any, nothing
	// is deleted.
	Blocking texts `json:"blocking"`
	// Others has the texts in other Secrets, which may be of this key or of another one.
	Others texts `json:"others"`
	// NotSearched has what could not be searched.
	NotSearched []string `json:"notSearched,omitempty"`
	Done        bool     `json:"done"` // whether the versions have been deleted
}

// texts counts texts and has the first locations of them.
type texts struct {
	Count     int        `json:"count"`
	Locations []location `json:"locations"`
}

// location is a value with texts of versions that are deleted.
type location struct {
	Namespace  string `json:"namespace"`
	Secret     string `json:"secret"`
	Entry      string `json:"entry,omitempty"`
	Annotation string `json:"annotation,omitempty"`
	InRelease  bool   `json:"inHelmRelease,omitempty"`
	Versions   []int  `json:"versions"`
}

func (t *texts) add(at location, version int) {
	t.Count++
	if n := len(t.Locations); n > 0 {
		last := &t.Locations[n-1]
		if last.Namespace == at.Namespace && last.Secret == at.Secret && last.Entry == at.Entry &&
			last.Annotation == at.Annotation && last.InRelease == at.InRelease {
			if !slices.Contains(last.Versions, version) {
				last.Versions = append(last.Versions, version)
			}
			return
		}
	}
	if len(t.Locations) < maxLocations {
		at.Versions = []int{version}
		t.Locations = append(t.Locations, at)
	}
}

func (p *plan) key() ciphertext.Key { return ciphertext.Key{Mount: p.Mount, Name: p.Name} }

// find searches all Secrets of the cluster for texts of the versions.
func (o *Options) find(ctx context.Context, p *plan) error {
	p.Blocking.Locations, p.Others.Locations = []location{}, []location{}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	return secretlist.Lister{Kube: kube}.Each(ctx, "", secretlist.Selection{}, func(s *corev1.Secret) error {
		p.search(s)
		return nil
	})
}

// search adds the texts of a Secret that have one of the versions.
func (p *plan) search(s *corev1.Secret) {
	p.Secrets++
	to := &p.Others
	if s.Labels[ciphertext.LabelTransitKey] == p.Name {
		// Settings that are not valid do not tell the mount.
		if set, err := ciphertext.SettingsOf(s); err != nil || set.Key == p.key() {
			to = &p.Blocking
		}
	}
	err := ciphertextscan.Secret(s, func(t ciphertextscan.Text) {
		if t.Version < p.From || t.Version >= p.To {
			return
		}
		at := location{Namespace: s.Namespace, Secret: s.Name, InRelease: t.InRelease}
		if t.Annotation {
			at.Annotation = t.Name
		} else {
			at.Entry = t.Name
		}
		to.add(at, t.Version)
	})
	if err != nil && len(p.NotSearched) < maxLocations {
		p.NotSearched = append(p.NotSearched, display.Sprintf("%s/%s: %v", s.Namespace, s.Name, display.Error(err)))
	}
}

// state returns the versions of the key, for messages.
func (p *plan) state() string {
	return fmt.Sprintf("min_available_version %d, min_decryption_version %d, newest version %d", p.From, p.MinDecryption,
		p.Latest)
}

// versions names the versions that are deleted.
func (p *plan) versions() string {
	if p.To-p.From == 1 {
		return fmt.Sprintf("version %d", p.From)
	}
	return fmt.Sprintf("versions %d to %d", p.From, p.To-1)
}

// print writes the plan for people.
func (p *plan) print(w io.Writer) {
	display.Fprintf(w, "%s of %s will be deleted permanently. Versions %d to %d are kept.\n",
		strings.ToUpper(p.versions()[:1])+p.versions()[1:], p.key(), p.To, p.Latest)
	p.Blocking.print(w, "in Secrets with the label of the key, which prevents the deletion")
	p.Others.print(w, "in other Secrets, of this key or of another one")
	for _, problem := range p.NotSearched {
		display.Fprintf(w, "not searched: %s\n", problem)
	}
	if p.Blocking.Count+p.Others.Count == 0 {
		display.Fprintf(w, "No text of these versions was found in %s.\n", cli.Plural(p.Secrets, "Secret", "Secrets"))
	} else {
		fmt.Fprintln(w, "These versions are retired, so whether a text needs them cannot be tested. To test it, lower\n"+
			"min_decryption_version first, and let the rotator retire them again.")
	}
	fmt.Fprintln(w, "Only backups of Vault from before have the versions then. Backups of the cluster, Git, ConfigMaps,\n"+
		"other objects and other clusters were not searched: their ciphertext of these versions will be lost.")
}

func (t texts) print(w io.Writer, where string) {
	if t.Count == 0 {
		return
	}
	display.Fprintf(w, "%s %s:\n", cli.Plural(t.Count, "text", "texts"), where)
	for _, at := range t.Locations {
		value := display.Sprintf("entry %q", at.Entry)
		if at.Annotation != "" {
			value = display.Sprintf("annotation %q", at.Annotation)
		}
		if at.InRelease {
			value += ", in the manifests of a Helm release"
		}
		versions := strings.Trim(strings.ReplaceAll(fmt.Sprint(at.Versions), " ", ", "), "[]")
		display.Fprintf(w, "  %s/%s: %s: version %s\n", at.Namespace, at.Secret, value, versions)
	}
	if len(t.Locations) == maxLocations {
		fmt.Fprintf(w, "  and perhaps more: only the first %d locations are listed\n", maxLocations)
	}
}
