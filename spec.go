package secretmanager

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Spec specifies a ciphertext Secret to create, or the changes of an existing one.
type Spec struct {
	// Namespace may be empty if the scope does not bind to it, for a manifest that can
	// be applied in any namespace.
	Namespace string
	Name      string
	// Settings: an empty Key.Mount means [ciphertext.DefaultTransitMount], an empty
	// Scope [ciphertext.Strict].
	Settings ciphertext.Settings
	// Entries are the plaintexts to set, by name of the entry.
	Entries map[string][]byte
	// Remove are names of entries to remove, for [Client.Update] and [EncryptUpdate].
	Remove []string
	// AllowEmpty accepts empty values. By default they are errors: an empty value is
	// nearly always a file that was not written or a variable that was not set.
	AllowEmpty bool
	// Settle is the age that a key version must have before values are encrypted with it,
	// so that every backup of Vault that is not older has it: see [transit.TargetVersion].
	// 0 means [transit.DefaultSettle], or none if Vault is a [*transit.Session] of a server
	// that keeps its data in memory. A negative value means none.
	Settle time.Duration
}

func (s *Spec) namespacedName() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

func nameOf(s *corev1.Secret) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// describe returns a name for an error. A name from a manifest may contain any
// characters, and an error may be printed on a terminal.
func describe(name types.NamespacedName) string { return display.Line(name.String()) }

// complete sets the defaults and reports all problems that can be found without a
// request.
func (s *Spec) complete() error {
	if s.Settings.Key.Mount == "" {
		s.Settings.Key.Mount = ciphertext.DefaultTransitMount
	}
	var errs []error
	scope, err := ciphertext.ParseScope(string(s.Settings.Scope))
	if err != nil {
		errs = append(errs, err)
	}
	s.Settings.Scope = scope
	errs = append(errs, s.checkNames()...)
	errs = append(errs, s.checkKey())
	errs = append(errs, s.checkEntries()...)
	return errors.Join(errs...)
}

func (s *Spec) checkNames() (errs []error) {
	switch scope := s.Settings.Scope; {
	case s.Namespace != "":
		if problems := validation.IsDNS1123Label(s.Namespace); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("namespace %q: %s", s.Namespace, problems[0]))
		}
	case scope == ciphertext.Strict, scope == ciphertext.Namespace:
		errs = append(errs, fmt.Errorf("no namespace: scope %s binds ciphertext to one", scope))
	}
	if problems := validation.IsDNS1123Subdomain(s.Name); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("name of the Secret %q: %s", s.Name, problems[0]))
	}
	return errs
}

func (s *Spec) checkKey() error {
	err := s.Settings.Key.Check()
	name := s.Settings.Key.Name
	if problems := validation.IsValidLabelValue(name); len(problems) > 0 && ciphertext.CheckName(name) == nil {
		err = errors.Join(err, fmt.Errorf("transit key %q cannot be the value of the label %s, by which the rotator "+
			"finds the Secret: %s: use a key of another name", name, ciphertext.LabelTransitKey, problems[0]))
	}
	return err
}

func (s *Spec) checkEntries() (errs []error) {
	if len(s.Entries) == 0 {
		return []error{errors.New("no entries: there is nothing to encrypt")}
	}
	size, sizes := 0, []string(nil)
	for _, entry := range ciphertext.Entries(s.Entries) {
		if problems := validation.IsConfigMapKey(entry); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("entry %q: invalid name: %s", entry, strings.Join(problems, "; ")))
		}
		n := len(s.Entries[entry])
		if n == 0 && !s.AllowEmpty {
			errs = append(errs, fmt.Errorf("entry %q is empty: an empty secret is nearly always a file that was not "+
				"written or a variable that was not set: check its source", entry))
		}
		size += ciphertext.Size(n)
		sizes = append(sizes, fmt.Sprintf("%s %d bytes", entry, n))
	}
	if size > ciphertext.MaxSecretSize {
		if len(sizes) > 10 {
			sizes = append(slices.Clip(sizes[:10]), fmt.Sprintf("and %d more", len(sizes)-10))
		}
		errs = append(errs, fmt.Errorf("the entries (%s) are %d bytes when encrypted, and a Kubernetes Secret holds %d: "+
			"split them into several Secrets", strings.Join(sizes, ", "), size, ciphertext.MaxSecretSize))
	}
	return errs
}
