package rotator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// rotateInterval is the time that must pass between two rotations of a key. So the retry of
// a Job does not create another version. Tests change it.
var rotateInterval = 10 * time.Minute

// Defaults of [Options], and of the flags that set them.
const (
	DefaultMaxKeyAge      = 24 * time.Hour
	DefaultRetireAfter    = 7 * 24 * time.Hour
	DefaultMaxGap         = 48 * time.Hour
	DefaultConcurrency    = 4
	DefaultStateNamespace = "secretmanager-system"
)

// Mode determines when a key gets a new version.
type Mode string

const (
	// Auto creates a version when the newest is older than [Options.MaxKeyAge] and
	// no entry is below it, so that an entry that cannot be rewrapped does not
	// cause more and more versions. It never rotates a key with an
	// auto_rotate_period, which Vault rotates. Auto is the default.
	Auto Mode = "auto"
	// Always creates a version in every run, unless an entry has a version that the
	// key has lost, or the newest version is only minutes old.
	Always Mode = "always"
	// Never creates no version: entries are rewrapped to the newest one.
	Never Mode = "never"
)

// Options configures a run. With only Keys set, it rotates and rewraps every Secret that has
// one of them in its label [ciphertext.LabelTransitKey], and retires nothing.
type Options struct {
	// Keys select the transit keys, each as [MOUNT/]NAME[=NAMESPACE,…]: there must be at least
	// one. A name may be a pattern of [path.Match], such as "team-*", which needs list on the
	// keys of the transit engine; it must have more than wildcards. With namespaces, Secrets
	// of the key in other ones are reported, and not rewrapped. A key that is named without a
	// pattern is rotated even if no Secret uses it. The labels of Secrets do not select
	// keys: the author of a Secret must not decide which keys are rotated and retired.
	Keys []string
	// Settle is the age of a key version from which stored ciphertext may have it, so that
	// ciphertext decrypts with every backup of Vault that is not older: see
	// [transit.TargetVersion]. 0 means [transit.DefaultSettle], or none if Vault keeps its
	// data in memory. A negative value means none.
	Settle time.Duration
	// Mount is the path of the transit engine of the Keys that name none; empty for
	// [ciphertext.DefaultTransitMount].
	Mount string
	// Namespaces to list; empty for the whole cluster.
	Namespaces []string
	// Selector is a label selector that Secrets must also match.
	Selector string

	// Scheduled says that this is the run of a schedule, such as that of the CronJob. Its report becomes the record that
	// [FetchSummary] returns and that the exporter's metrics and alerts come from. Another run leaves only a
	// [ManualRun] there. Every run saves what guards retirement.
	Scheduled bool

	Rotate    Mode          // default Auto
	MaxKeyAge time.Duration // for Auto; 0 means DefaultMaxKeyAge
	DryRun    bool          // report what would be done, change nothing
	// IncludeManaged also writes Secrets whose manager reverts the change (see
	// [ciphertext.ManagedBy]). By default they are only reported.
	IncludeManaged bool

	// Acknowledge has MOUNT/KEY@VERSION for each key that was restored from a backup or created
	// again, with its newest version. Without it, nothing is done to such a key.
	Acknowledge []string

	// Retire raises min_decryption_version to the highest version below which no ciphertext
	// has been seen for RetireAfter, which may be 0, and below which no text in any Secret
	// decrypts. It makes old ciphertext, for example in backups and in Git, useless.
	Retire      bool
	RetireAfter time.Duration
	// OnlyUser states that no other cluster or program uses the keys, which a run cannot
	// find out. Retire requires it.
	OnlyUser bool
	// MaxGap is the longest time between two listings that counts as observed: after a longer
	// one, RetireAfter begins again. 0 means DefaultMaxGap.
	MaxGap time.Duration
	// Release has NAMESPACE/NAME of Secrets whose old ciphertext does not prevent retirement
	// in this run, and becomes unreadable. The report names what was released.
	Release []string

	// Concurrency is the number of Secrets that are written at the same time; 0 means
	// DefaultConcurrency.
	Concurrency int
	// StateNamespace is the namespace of the ConfigMap and the Lease [StateName];
	// default DefaultStateNamespace.
	StateNamespace string

	Log *slog.Logger // default: nothing is logged
	// Progress, if not nil, is called from time to time, never concurrently.
	Progress func(Progress)
	// Waiting, if not nil, is called when the run begins to wait for another run that may have died, and done when it
	// no longer waits.
	Waiting func(what string) (done func())
	// Now replaces the clock of this machine and, for the age of keys, that of Vault.
	Now func() time.Time
}

// Validate returns all problems of the options. It sends no requests. [Run] also
// validates.
func (o Options) Validate() error { return o.complete() }

// complete sets the defaults and returns all problems.
func (o *Options) complete() error {
	var errs []error
	if o.Mount == "" {
		o.Mount = ciphertext.DefaultTransitMount
	}
	if _, err := parseKeyRules(o.Keys, o.Mount); err != nil {
		errs = append(errs, err)
	}
	if o.Retire && !o.OnlyUser {
		errs = append(errs, errors.New("retiring requires the statement that no other cluster or program uses the keys "+
			"(--only-user): their ciphertext would no longer decrypt"))
	}
	for _, name := range o.Release {
		if namespace, secret, ok := strings.Cut(name, "/"); !ok || namespace == "" || secret == "" ||
			strings.Contains(secret, "/") {
			errs = append(errs, fmt.Errorf("invalid Secret to release %q: must be NAMESPACE/NAME", name))
		}
	}
	if err := ciphertext.CheckPath(o.Mount); err != nil {
		errs = append(errs, fmt.Errorf("transit mount: %w", err))
	}
	if o.StateNamespace == "" {
		o.StateNamespace = DefaultStateNamespace
	}
	for _, ns := range append([]string{o.StateNamespace}, o.Namespaces...) {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("namespace %q: %s", ns, problems[0]))
		}
	}
	if _, err := parseAcknowledge(o.Acknowledge); err != nil {
		errs = append(errs, err)
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
	if o.MaxGap == 0 {
		o.MaxGap = DefaultMaxGap
	}
	if o.MaxGap < 0 {
		errs = append(errs, fmt.Errorf("max gap %s is negative", o.MaxGap))
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
	o.Namespaces = unique(o.Namespaces)
	if err := errors.Join(errs...); err != nil {
		return failure.InvalidOptions.Wrap(err)
	}
	return nil
}

func unique(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}
