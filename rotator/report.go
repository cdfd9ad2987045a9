package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// ErrIncomplete is wrapped by the error of [Run] when all phases ran and some
// entries are still not at their target version. The Report names them.
var ErrIncomplete = failure.Incomplete.Wrap(errors.New("not everything is at its target version"))

// maxProblems bounds how many problems a list names, so that memory does not
// grow with the number of Secrets. All are counted.
const maxProblems = 1000

// Report is what a run found and did. It holds names and numbers, no values.
type Report struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	DryRun   bool      `json:"dryRun,omitempty"`
	// StateUnread says why a dry run could not read the state. Without it, the run does not know since when old
	// versions are unused, nor whether a key was restored from a backup.
	StateUnread string       `json:"stateUnread,omitempty"`
	Result      Result       `json:"result"`
	Keys        []*KeyReport `json:"keys"` // by mount and name
	// Unassigned has the Secrets that do not name their key and the namespaces
	// that could not be listed.
	Unassigned Problems `json:"unassigned"`
	// NotSelected has the Secrets whose key no option selects, or not for their namespace.
	// They are not rewrapped, and do not make the run incomplete.
	NotSelected Problems `json:"notSelected,omitzero"`
	// Undecryptable has the texts that a search before retirement found, and that decrypt with
	// none of the keys. They prevent nothing.
	Undecryptable Problems `json:"undecryptable,omitzero"`
	// OlderReleases has the texts in old revisions of Helm releases that retirement makes
	// unreadable: older than the deployed one and the one before. They prevent nothing.
	OlderReleases Problems `json:"olderReleases,omitzero"`
}

// Result is the outcome of a run.
type Result string

// The values of [Result].
const (
	ResultDone       Result = "done"       // everything is at its target version
	ResultIncomplete Result = "incomplete" // all phases ran, and some entries are unresolved
	ResultFailed     Result = "failed"     // a key could not be read, rotated or retired
	ResultStopped    Result = "stopped"    // the run was stopped, or lost its Lease
)

// Results lists all values of [Result].
var Results = []Result{ResultDone, ResultIncomplete, ResultFailed, ResultStopped}

// result returns the outcome. stopped is the error that ended the run early, or nil.
func (r *Report) result(stopped error) Result {
	switch {
	case stopped != nil:
		return ResultStopped
	case slices.ContainsFunc(r.Keys, func(k *KeyReport) bool { return k.Error != "" }):
		return ResultFailed
	case !r.Complete():
		return ResultIncomplete
	}
	return ResultDone
}

// KeyReport is the part of a Report about one transit key.
type KeyReport struct {
	Mount string `json:"mount"`
	Name  string `json:"name"`

	MinDecryption int `json:"minDecryption"` // oldest version that could decrypt when the run began
	MinAvailable  int `json:"minAvailable"`  // oldest version that existed when the run began; 0: none was trimmed

	Before  int  `json:"before"`  // newest version when the run began; 0: could not be read
	After   int  `json:"after"`   // newest version when the run ended
	Target  int  `json:"target"`  // oldest version that entries should have, see [transit.TargetVersion]
	Rotated bool `json:"rotated"` // whether this run created a version
	// Unsettled is when backups of Vault that have the target version are old enough; nil
	// if they are already. Until then, take a snapshot of Vault.
	Unsettled *time.Time `json:"unsettled,omitempty"`
	// NotCovered counts the entries above the target, which older backups of Vault do not
	// cover.
	NotCovered int `json:"notCovered,omitempty"`
	// RotateReason says why the key was or was not rotated.
	RotateReason string `json:"rotateReason"`

	Secrets   int         `json:"secrets"`
	Oldest    int         `json:"oldest"`   // oldest version of an entry in the last inventory; 0: no entries
	Versions  map[int]int `json:"versions"` // entries by key version in the last inventory
	Rewrapped int         `json:"rewrapped"`
	Current   int         `json:"current"` // entries that were at the target already
	Pending   int         `json:"pending"` // entries below the target; in a dry run, those to rewrap

	// OlderManifests counts the Secrets to rewrap that somebody applied with kubectl: their
	// manifests are older from now on, and should be rewrapped too.
	OlderManifests int `json:"olderManifests,omitempty"`

	// Unresolved has the entries below the target that another run would not
	// bring there either.
	Unresolved Problems `json:"unresolved"`
	// Failed counts the unresolved entries that the run tried to rewrap. The
	// others were skipped, because others manage them.
	Failed int `json:"failed"`

	// Reverted has the entries that are older than what the rotator wrote, according to an
	// annotation: somebody applied an old manifest or restored a backup. They are rewrapped
	// like others, and the waiting time before retirement begins again.
	Reverted Problems `json:"reverted,omitzero"`

	// Error is the error that ended the work on this key, if any. It begins with its
	// reason.
	Error string `json:"error,omitempty"`

	Retire *RetireReport `json:"retire,omitempty"` // with [Options.Retire]
}

// RetireReport says how min_decryption_version was raised, or why not.
type RetireReport struct {
	From   int    `json:"from"`
	To     int    `json:"to"` // equal to From if nothing was retired
	Done   bool   `json:"done"`
	Reason string `json:"reason"`
	// Blocked is what prevents retirement. It is empty if nothing does, also
	// while RetireAfter has not passed.
	Blocked Blocker `json:"blocked,omitempty"`
	// WouldBreak names what could no longer be decrypted; the first 1,000.
	WouldBreak []Problem `json:"wouldBreak,omitempty"`
	// Released names what [Options.Release] lets become unreadable; the first 1,000.
	Released []Problem `json:"released,omitempty"`
}

// Blocker is a kind of condition that prevents the retirement of a version.
type Blocker string

// The values of [Blocker].
const (
	BlockerError    Blocker = "error"    // the key could not be read, processed or changed
	BlockerUnlisted Blocker = "unlisted" // not all Secrets of the key could be listed, or the run excludes some
	BlockerClock    Blocker = "clock"    // the clocks of Vault and of the API server differ
	BlockerGap      Blocker = "gap"      // the time between runs is longer than the maximum
	BlockerMissing  Blocker = "missing"  // the key has no entries, or fewer than half of those that decrypted before
	BlockerSearch   Blocker = "search"   // not everything could be searched for old ciphertext yet
	BlockerInUse    Blocker = "inUse"    // ciphertext of an old version still decrypts
)

// Blockers lists all values of [Blocker].
var Blockers = []Blocker{BlockerError, BlockerUnlisted, BlockerClock, BlockerGap, BlockerMissing, BlockerSearch,
	BlockerInUse}

// Location names an entry, or with empty fields a Secret, a namespace or the cluster.
type Location struct {
	Namespace string `json:"namespace,omitempty"` // empty: all namespaces
	Name      string `json:"name,omitempty"`
	Entry     string `json:"entry,omitempty"` // empty: the whole Secret
}

// String returns the location as "NAMESPACE/NAME/ENTRY".
func (l Location) String() string {
	s := l.Namespace
	if s == "" {
		s = "(all namespaces)"
	}
	if l.Name != "" {
		s += "/" + l.Name
	}
	if l.Entry != "" {
		s += "/" + l.Entry
	}
	return s
}

func (l Location) problem(reason *failure.Reason, format string, args ...any) Problem {
	return Problem{l, reasonText(reason, format, args...)}
}

// reasonText returns a text that begins with the reason.
func reasonText(reason *failure.Reason, format string, args ...any) string {
	return reason.String() + ": " + fmt.Sprintf(format, args...)
}

// withReason adds the reason of its kind to an error, or else another one.
func withReason(err error, otherwise *failure.Reason) error {
	if errors.Is(err, context.Canceled) {
		otherwise = failure.Stopped
	}
	return cmp.Or(failure.Of(err), otherwise).Wrap(err)
}

// Problem is an entry, a Secret or a namespace that needs attention, and the reason.
type Problem struct {
	Location
	// Reason begins with one of docs/reference/errors.md, such as "SecretImmutable: ".
	Reason string `json:"reason"`
}

// String returns the problem as "NAMESPACE/NAME/ENTRY: REASON".
func (p Problem) String() string { return p.Location.String() + ": " + p.Reason }

// DoesNotDecrypt reports whether the reason is that the entry decrypts nowhere, or not at its location.
func (p Problem) DoesNotDecrypt() bool {
	reason, _ := failure.Parse(p.Reason)
	return reason == failure.DecryptFailed
}

// Problems counts problems and names the first 1,000.
type Problems struct {
	Count int       `json:"count"`
	Items []Problem `json:"items,omitempty"`
}

func (p *Problems) add(problem Problem) {
	p.Count++
	if len(p.Items) < maxProblems {
		p.Items = append(p.Items, problem)
	}
}

// log writes a line for each named problem.
func (p *Problems) log(to *slog.Logger, message string) {
	for _, problem := range p.Items {
		to.Warn(message, "location", problem.Location.String(), "reason", problem.Reason)
	}
}

// Complete reports whether every entry is at its target and no key failed.
func (r *Report) Complete() bool {
	if r.Unassigned.Count > 0 {
		return false
	}
	for _, k := range r.Keys {
		if k.Unresolved.Count > 0 || k.Error != "" {
			return false
		}
	}
	return true
}

// err is the error that Run returns with the report.
func (r *Report) err() error {
	if r.Complete() {
		return nil
	}
	count, failed := r.Unassigned.Count, 0
	var example string
	if len(r.Unassigned.Items) > 0 {
		example = r.Unassigned.Items[0].String()
	}
	for _, k := range r.Keys {
		count += k.Unresolved.Count
		if example == "" && len(k.Unresolved.Items) > 0 {
			example = k.Unresolved.Items[0].String()
		}
	}
	for _, k := range r.Keys {
		if k.Error != "" {
			failed++
			example = k.key().String() + ": " + k.Error // explains more than one entry
		}
	}
	return fmt.Errorf("%w: %d unresolved, %d keys failed, for example %s", ErrIncomplete, count, failed, example)
}

// fail records the error that ended the work on the key. The first one is kept.
func (k *KeyReport) fail(err error) {
	if k.Error == "" {
		k.Error = withReason(err, failure.VaultError).Error()
	}
}

func (k *KeyReport) key() ciphertext.Key { return ciphertext.Key{Mount: k.Mount, Name: k.Name} }

// Progress is how far a run has come.
type Progress struct {
	Phase string // plan, rewrap, recount or search
	Done  int    // rewrap: entries processed; the other phases: Secrets listed
	Total int    // 0 if not known; an estimate otherwise
}
