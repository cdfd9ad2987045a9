package exporter

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// due returns when the first run after the last one should have begun, or will;
// with no run yet, the first one after the CronJob was made. The schedule is read as
// Kubernetes does, which uses the same library.
func due(job *batchv1.CronJob, last time.Time) (time.Time, error) {
	zone := time.UTC // where the controller manager runs, unless it is told otherwise
	if name := job.Spec.TimeZone; name != nil {
		var err error
		if zone, err = time.LoadLocation(*name); err != nil {
			return time.Time{}, fmt.Errorf("time zone of CronJob %s/%s: %w", job.Namespace, job.Name, err)
		}
	}
	schedule, err := cron.ParseStandard(job.Spec.Schedule)
	if err != nil {
		return time.Time{}, fmt.Errorf("schedule of CronJob %s/%s: %w", job.Namespace, job.Name, err)
	}
	since := job.CreationTimestamp.Time
	if last.After(since) {
		since = last
	}
	return schedule.Next(since.In(zone)), nil
}
