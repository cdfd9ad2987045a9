package rotator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Defaults of [Options], also those of the flags that set them.
const (
	DefaultMaxKeyAge      = 24 * time.Hour
	DefaultRetireAfter    = 7 * 24 * time.Hour
	DefaultConcurrency    = 4
	DefaultStateNamespace = "secretmanager-system"
)

// Mode says when a key gets a new version.
type Mode string

const (
	// Auto makes one when the newest is older than [Options.MaxKeyAge] and no
	// entry is below it any more, so that versions do not pile up over an entry
	// that cannot be rewrapped. A key with an auto_rotate_period is left to Vault.
	// The default.
	Auto Mode = "auto"
	// Always makes one in every run, unless an entry is of a version that the key
	// has lost.
	Always Mode = "always"
	// Never makes none: entries are brought to the newest version that there is.
	Never Mode = "never"
)

// Options says what a run does. The zero value rotates and rewraps everything
// that carries the label [ciphertext.LabelTransitKey], and retires nothing.
type Options struct {
	// Keys are names of transit keys; empty for every key found in the labels. A
	// key named here is looked after even if no Secret uses it.
	Keys []string
	// Mount narrows the run to Secrets whose transit engine is mounted there;
	// empty for each Secret's own.
	Mount string
	// Namespaces to list; empty for a list across the whole cluster.
	Namespaces []string
	// Selector is a label selector that Secrets must match besides.
	Selector string

	Rotate    Mode          // default Auto
	MaxKeyAge time.Duration // for Auto; 0 means DefaultMaxKeyAge
	DryRun    bool          // find out and report, change nothing
	// IncludeManaged writes Secrets too that a GitOps tool keeps as they are in
	// Git (see [ciphertext.ManagedBy]), and that are otherwise only reported.
	IncludeManaged bool

	// Retire raises min_decryption_version to the highest version below which no
	// entry has been seen anywhere in the cluster for RetireAfter, a time that may
	// be 0. It is what makes old ciphertext, as in backups and in Git, useless.
	Retire      bool
	RetireAfter time.Duration
	// Trim deletes the versions that Vault has refused to decrypt for RetireAfter,
	// whoever retired them, as soon as a look at the whole cluster finds nothing
	// that would need them. It cannot be undone, so RetireAfter has to be above 0:
	// until then lowering min_decryption_version rescues a backup, and afterwards
	// only a backup of Vault does.
	Trim bool

	// Concurrency is how many Secrets are written at the same time; 0 means
	// DefaultConcurrency.
	Concurrency int
	// StateNamespace has the ConfigMap [StateName]; default DefaultStateNamespace.
	StateNamespace string

	Log *slog.Logger // default: nothing is logged
	// Progress, if not nil, is called now and then, never by two at a time.
	Progress func(Progress)
	Now      func() time.Time // default time.Now
}

// Validate reports everything that is wrong with the options, without asking
// anybody. [Run] does it too.
func (o Options) Validate() error { return o.complete() }

// complete fills in the defaults and reports everything that is wrong.
func (o *Options) complete() error {
	var errs []error
	for _, name := range o.Keys {
		if err := ciphertext.CheckName(name); err != nil {
			errs = append(errs, fmt.Errorf("transit key: %w", err))
		} else if problems := validation.IsValidLabelValue(name); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("transit key %q cannot be a label, which is how its Secrets are found: %s",
				name, problems[0]))
		}
	}
	if o.Mount != "" {
		if err := ciphertext.CheckPath(o.Mount); err != nil {
			errs = append(errs, fmt.Errorf("transit mount: %w", err))
		}
	}
	if o.StateNamespace == "" {
		o.StateNamespace = DefaultStateNamespace
	}
	for _, ns := range append([]string{o.StateNamespace}, o.Namespaces...) {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("namespace %q: %s", ns, problems[0]))
		}
	}
	if _, err := labels.Parse(o.Selector); err != nil {
		errs = append(errs, fmt.Errorf("label selector %q: %w", o.Selector, err))
	}
	switch o.Rotate {
	case "":
		o.Rotate = Auto
	case Auto, Always, Never:
	default:
		errs = append(errs, fmt.Errorf("invalid rotate %q: must be %s, %s or %s", o.Rotate, Auto, Always, Never))
	}
	if o.MaxKeyAge == 0 {
		o.MaxKeyAge = DefaultMaxKeyAge
	}
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.MaxKeyAge < 0 {
		errs = append(errs, fmt.Errorf("max key age %s is negative", o.MaxKeyAge))
	}
	if o.RetireAfter < 0 {
		errs = append(errs, fmt.Errorf("retire after %s is negative", o.RetireAfter))
	}
	if o.Trim && o.RetireAfter == 0 {
		errs = append(errs,
			errors.New("trimming cannot be undone, so retire after may not be 0 with it: what is retired by mistake "+
				"is rescued in that time"))
	}
	if o.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("concurrency %d is negative", o.Concurrency))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Keys = unique(o.Keys)
	o.Namespaces = unique(o.Namespaces)
	return errors.Join(errs...)
}

// narrowed is whether the run may pass over ciphertext of its keys.
func (o *Options) narrowed() bool { return len(o.Namespaces) > 0 || o.Selector != "" }

func unique(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}
