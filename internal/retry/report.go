package retry

import (
	"sync"
	"time"
)

// ReportEvery is the usual interval of Report.
const ReportEvery = 5 * time.Second

// Report calls report at intervals, with how long it has been called for, until stop is called.
// No call is under way when stop returns. A nil report is not called.
func Report(every time.Duration, report func(waited time.Duration)) (stop func()) {
	if report == nil {
		return func() {}
	}
	began, done := time.Now(), make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				report(time.Since(began))
			}
		}
	})
	return func() {
		close(done)
		reporter.Wait()
	}
}
