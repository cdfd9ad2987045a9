package secretmanager

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Spec says what ciphertext Secret to make.
type Spec struct {
	// Namespace may be empty where the scope does not bind to it, for a manifest
	// that is to be applied in any.
	Namespace string
	Name      string
	// Settings: an empty Mount means [ciphertext.DefaultTransitMount], an empty
	// Scope [ciphertext.Strict].
	Settings ciphertext.Settings
	// Entries are the plaintexts by name of the entry.
	Entries map[string][]byte
	// AllowEmpty takes empty values too, which are refused otherwise: nearly always
	// they are a file that was not written or a variable that was not set.
	AllowEmpty bool
}

// complete fills in the defaults and reports everything that can be seen to be
// wrong without asking anybody.
func (s *Spec) complete() error {
	if s.Settings.Mount == "" {
		s.Settings.Mount = ciphertext.DefaultTransitMount
	}
	var errs []error
	scope, err := ciphertext.ParseScope(string(s.Settings.Scope))
	if err != nil {
		errs = append(errs, err)
	}
	s.Settings.Scope = scope
	errs = append(errs, s.checkNames()...)
	errs = append(errs, s.checkSettings()...)
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

func (s *Spec) checkSettings() (errs []error) {
	if err := ciphertext.CheckPath(s.Settings.Mount); err != nil {
		errs = append(errs, fmt.Errorf("transit mount: %w", err))
	}
	if err := ciphertext.CheckName(s.Settings.Key); err != nil {
		errs = append(errs, fmt.Errorf("transit key: %w", err))
	} else if problems := validation.IsValidLabelValue(s.Settings.Key); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("transit key %q cannot be the value of the label %s, by which the rotator finds the Secret: %s: use a key of another name",
			s.Settings.Key, ciphertext.LabelTransitKey, problems[0]))
	}
	return errs
}

func (s *Spec) checkEntries() (errs []error) {
	if len(s.Entries) == 0 {
		return []error{errors.New("no entries: there is nothing to encrypt")}
	}
	size, sizes := 0, []string(nil)
	for _, entry := range ciphertext.Entries(s.Entries) {
		if problems := validation.IsConfigMapKey(entry); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("entry %q: Kubernetes does not take the name: %s", entry, strings.Join(problems, "; ")))
		}
		n := len(s.Entries[entry])
		if n == 0 && !s.AllowEmpty {
			errs = append(errs, fmt.Errorf("entry %q: it is empty: an empty secret is nearly always a file that was not written or a variable that was not set: check where it comes from", entry))
		}
		size += ciphertext.Size(n)
		sizes = append(sizes, fmt.Sprintf("%s %d bytes", entry, n))
	}
	if size > ciphertext.MaxSecretSize {
		if len(sizes) > 10 {
			sizes = append(slices.Clip(sizes[:10]), fmt.Sprintf("and %d more", len(sizes)-10))
		}
		errs = append(errs, fmt.Errorf("the entries (%s) are %d bytes once encrypted, and a Kubernetes Secret holds %d: split them over several Secrets",
			strings.Join(sizes, ", "), size, ciphertext.MaxSecretSize))
	}
	return errs
}
