package rotator

import (
	"encoding/json"
	"strings"
	"time"
)

// manualEntry has the last run that was not scheduled.
const manualEntry = "manual"

// ManualRun is what the state has of the last run without [Options.Scheduled]. Such a run changes nothing that alerts
// read: it may be limited to some keys and namespaces, or interrupted, and its caller has seen its report.
type ManualRun struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Result   Result    `json:"result"`
	// Scope has the keys, namespaces and selector of the run as flags.
	Scope string `json:"scope"`
	// Rotated counts the keys that got a new version, Rewrapped and Unresolved count entries.
	Rotated    int `json:"rotated"`
	Rewrapped  int `json:"rewrapped"`
	Unresolved int `json:"unresolved"`
	// Error is the first error that ended the work on a key.
	Error string `json:"error,omitempty"`
	// Problems has some of the unresolved entries.
	Problems []Problem `json:"problems,omitempty"`
}

// maxManualProblems bounds the problems that the state keeps of a manual run.
const maxManualProblems = 10

// manualRun returns what the state keeps of the run.
func (r *run) manualRun() ManualRun {
	m := ManualRun{Started: r.report.Started, Finished: r.report.Finished, Result: r.report.Result,
		Scope: shorten(r.scope(), maxStoredText), Unresolved: r.report.Unassigned.Count}
	for _, k := range r.report.Keys {
		if k.Rotated {
			m.Rotated++
		}
		m.Rewrapped += k.Rewrapped
		m.Unresolved += k.Unresolved.Count
		m.Problems = append(m.Problems, k.Unresolved.stored(maxManualProblems-len(m.Problems)).Items...)
		if m.Error == "" && k.Error != "" {
			m.Error = shorten(k.Mount+"/"+k.Name+": "+k.Error, maxStoredText)
		}
	}
	return m
}

// scope returns the keys, namespaces and selector as flags of the command line.
func (o *Options) scope() string {
	var flags []string
	for _, key := range o.Keys {
		flags = append(flags, "--transit-key "+key)
	}
	if len(o.Namespaces) == 0 {
		flags = append(flags, "-A")
	} else {
		flags = append(flags, "-n "+strings.Join(o.Namespaces, ","))
	}
	if o.Selector != "" {
		flags = append(flags, "-l "+o.Selector)
	}
	return strings.Join(flags, " ")
}

// readManual parses the note about the last run that was not scheduled. It returns nil for a text that the rotator did
// not write: the note is only for people.
func readManual(text string) *ManualRun {
	var m ManualRun
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Finished.IsZero() {
		return nil
	}
	return &m
}
