package exporter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/secretmanager-io/secretmanager/rotator"
)

const (
	namespace = "secretmanager"
	subsystem = "rotation"
)

// Values of the label state.
const (
	stateCurrent = "current"
	stateManaged = "managed"
	stateFailed  = "failed"
)

// metric is one of the exporter's, all of which are gauges: they say what was found
// at the last run.
type metric struct{ desc *prometheus.Desc }

var all []metric

func gauge(name, help string, labels ...string) metric {
	m := metric{prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)}
	all = append(all, m)
	return m
}

// keyGauge is one that each transit key has: two labels, as two mounts may have a
// key of one name. There are as many of them as keys, never as many as Secrets.
func keyGauge(name, help string, labels ...string) metric {
	return gauge("key_"+name, help, append([]string{"transit_mount", "transit_key"}, labels...)...)
}

var (
	readSuccess = gauge("read_success", "Whether this scrape could read what the others are made from.", "object")

	lastRun      = gauge("last_run_timestamp_seconds", "When the last run ended.")
	lastDuration = gauge("last_run_duration_seconds", "How long it took.")
	lastResult   = gauge("last_run_result", "1 for what became of it, 0 for what did not.", "result")
	lastSuccess  = gauge("last_success_timestamp_seconds",
		"When the last run ended after which everything was at its target.")
	unassigned = gauge("unassigned", "Secrets and namespaces of which the last run could not tell the key.")

	suspended = gauge("suspended", "Whether the CronJob is suspended.")
	dueAt     = gauge("due_timestamp_seconds", "When the first run after the last one should have begun, or will.")

	keyLastRun = keyGauge("last_run_timestamp_seconds", "When the last run ended that looked at the key.")
	keyFailed  = keyGauge("failed", "Whether the work on the key ended early.")
	keyTarget  = keyGauge("target_version", "Version that all entries should have.")
	keyOldest  = keyGauge("oldest_version", "Oldest version that an entry has; 0 if there are no entries.")
	keyOpens   = keyGauge("min_decryption_version", "Oldest version that Vault still decrypts.")
	keySecrets = keyGauge("secrets", "Ciphertext Secrets.")
	keyEntries = keyGauge("entries",
		"Entries at the target, left to a GitOps tool, and left though they should not be.", "state")
	keyBlocked = keyGauge("retirement_blocked",
		"1 for what keeps old versions from being retired, 0 for what does not.", "reason")
	keyClean = keyGauge("clean_since_timestamp_seconds",
		"Since when no entry needs the oldest version that Vault still decrypts.")
	keyRetiredAt = keyGauge("retired_since_timestamp_seconds",
		"Since when the oldest version that is not trimmed is refused.")
)

// snapshot is what one scrape found. It is the collector of that scrape alone.
type snapshot struct {
	summary   *rotator.Summary // nil: it could not be read
	scheduled bool             // whether there should be a CronJob
	schedule  *schedule        // nil: it could not be read
}

func (s *snapshot) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range all {
		descs <- m.desc
	}
}

func (s *snapshot) Collect(to chan<- prometheus.Metric) {
	set := func(m metric, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, value, labels...)
	}
	set(readSuccess, number(s.summary != nil), "configmap")
	if s.summary != nil {
		s.run(set)
	}
	if !s.scheduled {
		return
	}
	set(readSuccess, number(s.schedule != nil), "cronjob")
	if s.schedule == nil || s.schedule.cron == nil {
		return
	}
	suspend := s.schedule.cron.Spec.Suspend
	set(suspended, number(suspend != nil && *suspend))
	setTime(set, dueAt, s.schedule.due)
}

func (s *snapshot) run(set func(metric, float64, ...string)) {
	run := s.summary
	if run.Finished.IsZero() {
		return // there was none yet
	}
	setTime(set, lastRun, run.Finished)
	set(lastDuration, run.Finished.Sub(run.Started).Seconds())
	if run.Result != "" {
		for _, result := range rotator.Results {
			set(lastResult, number(result == run.Result), string(result))
		}
	}
	setTime(set, lastSuccess, run.LastDone)
	set(unassigned, float64(run.Unassigned))
	for i := range run.Keys {
		k := &run.Keys[i]
		of(k, set)
	}
}

func of(k *rotator.KeySummary, all func(metric, float64, ...string)) {
	set := func(m metric, value float64, labels ...string) {
		all(m, value, append([]string{k.Mount, k.Name}, labels...)...)
	}
	setTime(set, keyLastRun, k.Finished)
	set(keyFailed, number(k.Error != ""))
	if k.Target > 0 { // else the key could not be read
		set(keyTarget, float64(k.Target))
		set(keyOpens, float64(k.Opens()))
	}
	if k.Verified() {
		set(keyOldest, float64(k.Oldest))
		set(keySecrets, float64(k.Secrets))
	}
	if k.Verified() && k.Target > 0 { // else which are at it is not known
		set(keyEntries, float64(k.Versions[k.Target]), stateCurrent)
		set(keyEntries, float64(k.LeftCount-k.Failed), stateManaged)
		set(keyEntries, float64(k.Failed), stateFailed)
	}
	if k.Retire != nil {
		for _, reason := range rotator.Obstacles {
			set(keyBlocked, number(reason == k.Retire.Blocked), string(reason))
		}
	}
	setTime(set, keyClean, k.CleanSince)
	setTime(set, keyRetiredAt, k.RetiredSince)
}

// setTime leaves out what is not known.
func setTime(set func(metric, float64, ...string), m metric, t time.Time) {
	if !t.IsZero() {
		set(m, float64(t.Unix()))
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
