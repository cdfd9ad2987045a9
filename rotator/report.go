package rotator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// ErrIncomplete is what the error of [Run] wraps when the run came to its end
// and something is left: the Report says what and why.
var ErrIncomplete = errors.New("not everything is at its target")

// maxLeft bounds how many left entries a report names, so that memory does not
// grow with the number of Secrets. All are counted.
const maxLeft = 1000

// log has a line for each that is left and named.
func (r *Remainder) log(to *slog.Logger) {
	for _, l := range r.Left {
		to.Warn("left", "place", entryRef{l.Namespace, l.Name, l.Entry}.String(), "reason", l.Reason)
	}
}

// Report is what a run found and did. It holds names and numbers, no values.
type Report struct {
	Started  time.Time    `json:"started"`
	Finished time.Time    `json:"finished"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Result   Result       `json:"result"`
	Keys     []*KeyReport `json:"keys"` // by mount and name
	// Remainder is what could not be told to belong to a key: Secrets with
	// malformed settings, namespaces that could not be listed.
	Remainder
}

// Result says in a word what became of a run.
type Result string

const (
	ResultDone    Result = "done"    // everything is at its target
	ResultLeft    Result = "left"    // it went to its end, and something is left
	ResultFailed  Result = "failed"  // a key could not be read, rotated, retired or trimmed
	ResultStopped Result = "stopped" // it was told to stop before its end, or lost its Lease
)

// Results are all that there are.
var Results = []Result{ResultDone, ResultLeft, ResultFailed, ResultStopped}

// result is the word for what the report says; stopped is the error that ended the
// run before its end.
func (r *Report) result(stopped error) Result {
	switch {
	case stopped != nil:
		return ResultStopped
	case slices.ContainsFunc(r.Keys, func(k *KeyReport) bool { return k.Error != "" }):
		return ResultFailed
	case !r.Complete():
		return ResultLeft
	}
	return ResultDone
}

// Remainder is what is not at its target, and why.
type Remainder struct {
	Left      []Left `json:"left,omitempty"` // the first 1,000
	LeftCount int    `json:"leftCount"`      // all
}

func (r *Remainder) leave(l Left) {
	r.LeftCount++
	if len(r.Left) < maxLeft {
		r.Left = append(r.Left, l)
	}
}

// KeyReport is the part of one transit key.
type KeyReport struct {
	Mount string `json:"mount"`
	Name  string `json:"name"`

	MinDecryption int `json:"minDecryption"` // oldest version that still opened when the run began
	MinAvailable  int `json:"minAvailable"`  // oldest version that was not trimmed then; 0: nothing was

	Before  int  `json:"before"`  // newest version when the run began; 0: could not be read
	After   int  `json:"after"`   // and after it
	Target  int  `json:"target"`  // where every entry should be; in a dry run what would be it
	Rotated bool `json:"rotated"` // whether this run made a version
	// RotateReason says why the key was rotated, or why not.
	RotateReason string `json:"rotateReason"`

	Secrets   int         `json:"secrets"`
	Oldest    int         `json:"oldest"`   // version that an entry still has, as last seen; 0: there are no entries
	Versions  map[int]int `json:"versions"` // entries by key version, as last seen
	Rewrapped int         `json:"rewrapped"`
	Current   int         `json:"current"` // entries that were at the target already
	Pending   int         `json:"pending"` // entries below the target as last seen; in a dry run, what would be rewrapped

	Remainder // the entries that are not at the target and will not get there by themselves
	// Failed counts those of them that the run should have brought there: all but
	// the ones that a GitOps tool keeps and that are reported only.
	Failed int `json:"failed"`

	PutBack

	// Error is what ended the work on this key as a whole.
	Error string `json:"error,omitempty"`

	Retire *RetireReport `json:"retire,omitempty"` // if it was asked for
	Trim   *TrimReport   `json:"trim,omitempty"`   // if it was asked for
}

// TrimReport says how min_available_version was raised, or why not.
type TrimReport struct {
	From   int    `json:"from"`
	To     int    `json:"to"` // as From when nothing was trimmed
	Done   bool   `json:"done"`
	Reason string `json:"reason"`
}

// RetireReport says how min_decryption_version was raised, or why not.
type RetireReport struct {
	From   int    `json:"from"`
	To     int    `json:"to"` // as From when nothing was raised
	Done   bool   `json:"done"`
	Reason string `json:"reason"`
	// Blocked is the kind of what stands in the way; empty if nothing does, and while
	// only the time that has to pass is not over.
	Blocked Obstacle `json:"blocked,omitempty"`
	// WouldBreak is what stands in the way, as it would not open any more; the
	// first 1,000.
	WouldBreak []Left `json:"wouldBreak,omitempty"`
}

// Obstacle is a kind of what keeps a version from being retired.
type Obstacle string

const (
	ObstacleError      Obstacle = "error"      // the key could not be read, worked on or changed
	ObstacleUnread     Obstacle = "unread"     // not all of the cluster could be looked at
	ObstacleUnlabelled Obstacle = "unlabelled" // a ciphertext Secret does not say its key
	ObstacleLeft       Obstacle = "left"       // entries are not at the target and will not get there by themselves
	ObstaclePending    Obstacle = "pending"    // entries are below the target and can be rewrapped
	ObstacleBack       Obstacle = "back"       // entries came back that had been rewrapped
)

// Obstacles are all that there are.
var Obstacles = []Obstacle{ObstacleError, ObstacleUnread, ObstacleUnlabelled, ObstacleLeft, ObstaclePending,
	ObstacleBack}

// Left is an entry, or a whole Secret or namespace, that is not at its target.
type Left struct {
	Namespace string `json:"namespace,omitempty"` // empty: all of them
	Name      string `json:"name,omitempty"`
	Entry     string `json:"entry,omitempty"` // empty: the Secret as a whole
	Reason    string `json:"reason"`
}

// String returns it as "NAMESPACE/NAME/ENTRY: REASON".
func (l Left) String() string {
	return entryRef{l.Namespace, l.Name, l.Entry}.String() + ": " + l.Reason
}

// Complete is whether nothing is left and nothing failed.
func (r *Report) Complete() bool {
	if r.LeftCount > 0 {
		return false
	}
	for _, k := range r.Keys {
		if k.LeftCount > 0 || k.Error != "" {
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
	left, failed := r.LeftCount, 0
	var such string
	if len(r.Left) > 0 {
		such = r.Left[0].String()
	}
	for _, k := range r.Keys {
		left += k.LeftCount
		if such == "" && len(k.Left) > 0 {
			such = k.Left[0].String()
		}
	}
	for _, k := range r.Keys {
		if k.Error != "" {
			failed++
			such = k.key().String() + ": " + k.Error // explains more than one entry
		}
	}
	return fmt.Errorf("%w: %d left, %d keys failed, such as %s", ErrIncomplete, left, failed, such)
}

// fail notes what ended the work on the key; the first such thing counts.
func (k *KeyReport) fail(err error) {
	if k.Error == "" {
		k.Error = err.Error()
	}
}

func (k *KeyReport) key() ciphertext.Key { return ciphertext.Key{Mount: k.Mount, Name: k.Name} }

// Progress is how far a run has come.
type Progress struct {
	Phase string // plan, rewrap, verify
	Done  int    // plan and verify: Secrets seen; rewrap: entries done
	Total int    // as far as it is known; 0: not known
}
