// Package rotation has the flags of a rotation, for the rotator and for the verb rotate.
package rotation

import (
	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// Rotation has the options of a rotation and its limits on requests.
type Rotation struct {
	rotator.Options
	Settle   options.Settle
	KubeQPS  float32
	VaultQPS float64
}

// AddFlags adds all flags but those for namespaces and a dry run.
func (r *Rotation) AddFlags(f *pflag.FlagSet, getenv func(string) string) {
	f.StringArrayVar(&r.Keys, "transit-key", nil,
		"`key` to rotate, as [MOUNT/]KEY[=NAMESPACE,…]; required and repeatable; KEY may be a pattern such as team-*, which "+
			"needs list on the keys in Vault; with namespaces, Secrets in other ones are only reported")
	options.PathVar(f, &r.Mount, "transit-mount", ciphertext.DefaultTransitMount,
		"`path` of the transit engine of the keys that name none")
	f.StringVarP(&r.Selector, "selector", "l", "", "label `selector` that Secrets must also match")
	f.StringVar((*string)(&r.Rotate), "rotate", string(rotator.Auto),
		"`when` keys get a new version: auto (when it is due), always, never")
	f.DurationVar(&r.MaxKeyAge, "max-key-age", rotator.DefaultMaxKeyAge,
		"age of the newest version at which a new one is due")
	r.Settle.AddFlags(f, getenv)
	f.BoolVar(&r.IncludeManaged, "include-managed", false,
		"also write Secrets that others manage, such as Argo CD or Helm, which are otherwise only reported")
	f.StringSliceVar(&r.Acknowledge, "acknowledge", nil,
		"`MOUNT/KEY@VERSION` of a key that was restored from a backup or created again, with its newest version; "+
			"without it, nothing is done to such a key (repeatable)")
	f.BoolVar(&r.Retire, "retire", false, "make Vault refuse old versions that no ciphertext needs")
	f.BoolVar(&r.OnlyUser, "only-user", false,
		"state that no other cluster or program uses the keys, which a run cannot find out; required with --retire")
	f.DurationVar(&r.RetireAfter, "retire-after", rotator.DefaultRetireAfter,
		"how long a version must have been unused before it is retired")
	f.DurationVar(&r.MaxGap, "max-gap", rotator.DefaultMaxGap,
		"longest time between two runs that counts for --retire-after, which begins again after a longer one")
	f.StringSliceVar(&r.Release, "release", nil,
		"`NAMESPACE/NAME` of a Secret whose old ciphertext may become unreadable, for this run (repeatable)")
	f.IntVar(&r.Concurrency, "concurrency", rotator.DefaultConcurrency, "`number` of Secrets written at the same time")
	f.StringVar(&r.StateNamespace, "state-namespace", rotator.DefaultStateNamespace,
		"`namespace` of the ConfigMaps and the Lease of the rotator")
	f.Float32Var(&r.KubeQPS, "kube-qps", 50, "maximum `number` of requests per second to the API server")
	f.Float64Var(&r.VaultQPS, "vault-qps", 50, "maximum `number` of requests per second to Vault")
}

// Validate returns all problems.
func (r *Rotation) Validate() (errs []error) {
	positive := func(flag string, value float64) {
		if value <= 0 {
			errs = append(errs, options.Invalid(flag, "invalid value %v: must be greater than 0", value))
		}
	}
	if r.MaxKeyAge == 0 {
		errs = append(errs, options.Invalid("max-key-age", "must not be 0: to rotate whatever the age, set --rotate=always"))
	}
	positive("kube-qps", float64(r.KubeQPS))
	positive("vault-qps", r.VaultQPS)
	positive("max-gap", r.MaxGap.Seconds())
	if r.Concurrency == 0 {
		errs = append(errs, options.Invalid("concurrency", "must not be 0"))
	}
	errs = append(errs, r.Settle.Validate()...)
	r.Options.Settle = r.Settle.Duration
	return append(errs, r.Options.Validate())
}
