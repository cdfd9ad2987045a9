package exporter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/secretmanager-io/secretmanager/internal/failure"
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

// metric is a metric of the exporter. All are gauges of the state at the last run.
type metric struct{ desc *prometheus.Desc }

var all []metric

func gauge(name, help string, labels ...string) metric {
	m := metric{prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)}
	all = append(all, m)
	return m
}

// keyGauge returns a metric that each transit key has. Its labels include the mount,
// because two mounts may have keys with the same name. Secrets do not add series.
func keyGauge(name, help string, labels ...string) metric {
	return gauge("key_"+name, help, append([]string{"transit_mount", "transit_key"}, labels...)...)
}

var (
	readSuccess = gauge("read_success", "1 if this scrape read the object, otherwise 0.", "object")

	lastRun      = gauge("last_run_timestamp_seconds", "When the last run ended.")
	lastDuration = gauge("last_run_duration_seconds", "Duration of the last run.")
	lastResult   = gauge("last_run_result", "1 for the result of the last run, 0 for the other results.", "result")
	lastSuccess  = gauge("last_success_timestamp_seconds",
		"When the last run with the result done ended.")
	unassigned = gauge("unassigned",
		"Secrets that do not name their key, and namespaces that the last run could not list.")
	notSelected = gauge("not_selected",
		"Secrets whose key the rotator's options do not select, or not for their namespace.")

	suspended = gauge("suspended", "1 if the CronJob is suspended, otherwise 0.")
	dueAt     = gauge("due_timestamp_seconds", "When the next run is due.")

	keyLastRun   = keyGauge("last_run_timestamp_seconds", "When the last run that processed the key ended.")
	keyFailed    = keyGauge("failed", "1 if an error ended the work on the key, otherwise 0.", "reason")
	keyTarget    = keyGauge("target_version", "Version that every entry should have.")
	keyOldest    = keyGauge("oldest_version", "Oldest version of an entry, or 0 if there are no entries.")
	keyMinDec    = keyGauge("min_decryption_version", "Oldest version that Vault still decrypts.")
	keyUnsettled = keyGauge("unsettled_until_timestamp_seconds",
		"Time from which on all backups of Vault that count have the target version. Until then, take a snapshot.")
	keyNotCovered = keyGauge("entries_not_covered",
		"Number of entries above the target, which older backups of Vault do not have.")
	keySecrets = keyGauge("secrets", "Number of ciphertext Secrets.")
	keyEntries = keyGauge("entries",
		"Number of entries: at the target, skipped because others manage them, or failed to be rewrapped.", "state")
	keyBlocked = keyGauge("retirement_blocked",
		"1 for the reason why old versions cannot be retired, 0 for the other reasons.", "reason")
	keyClean = keyGauge("clean_since_timestamp_seconds",
		"Time since which no entry has needed the oldest version that Vault still decrypts.")
)

// snapshot has the objects that a scrape read, and is its collector.
type snapshot struct {
	summary   *rotator.Summary // nil if it could not be read
	scheduled bool             // whether a CronJob is configured
	schedule  *schedule        // nil if it could not be read
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
		s.collectRun(set)
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

func (s *snapshot) collectRun(set func(metric, float64, ...string)) {
	run := s.summary
	if run.Finished.IsZero() {
		return // there was no run yet
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
	set(notSelected, float64(run.NotSelected))
	for i := range run.Keys {
		collectKey(&run.Keys[i], set)
	}
}

func collectKey(k *rotator.KeySummary, setAll func(metric, float64, ...string)) {
	set := func(m metric, value float64, labels ...string) {
		setAll(m, value, append([]string{k.Mount, k.Name}, labels...)...)
	}
	setTime(set, keyLastRun, k.Finished)
	reason := ""
	if r, _ := failure.Parse(k.Error); r != nil {
		reason = r.String()
	}
	set(keyFailed, number(k.Error != ""), reason)
	if k.Target > 0 { // otherwise the key could not be read
		set(keyTarget, float64(k.Target))
		set(keyNotCovered, float64(k.NotCovered))
		if k.Unsettled != nil {
			setTime(set, keyUnsettled, *k.Unsettled)
		}
		set(keyMinDec, float64(k.OldestDecryptable()))
	}
	if k.Counted() {
		set(keyOldest, float64(k.Oldest))
		set(keySecrets, float64(k.Secrets))
	}
	if k.Counted() && k.Target > 0 { // otherwise the target is not known
		current := 0
		for version, entries := range k.Versions {
			if version >= k.Target {
				current += entries
			}
		}
		set(keyEntries, float64(current), stateCurrent)
		set(keyEntries, float64(k.Unresolved.Count-k.Failed), stateManaged)
		set(keyEntries, float64(k.Failed), stateFailed)
	}
	if k.Retire != nil {
		for _, reason := range rotator.Blockers {
			set(keyBlocked, number(reason == k.Retire.Blocked), string(reason))
		}
	}
	setTime(set, keyClean, k.CleanSince)
}

// setTime sets a metric, unless the time is zero.
func setTime(set func(metric, float64, ...string), m metric, t time.Time) {
	if !t.IsZero() {
		set(m, float64(t.Unix()))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
