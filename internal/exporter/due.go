package exporter

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// Due returns the time of the first scheduled run after the last one, or after the
// creation of the CronJob if there was none. Kubernetes parses the schedule with the same
// library.
func Due(job *batchv1.CronJob, last time.Time) (time.Time, error) {
	zone := time.UTC // the default of the controller manager
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
