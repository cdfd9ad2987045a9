package cli

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitLine verifies that the line appears after two seconds, counts, and is erased.
func TestWaitLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := &Factory{line: newWaitLine(&out)}
		written := func() string {
			p.line.mu.Lock()
			defer p.line.mu.Unlock()
			return out.String()
		}
		done := p.Wait("the Lease")
		time.Sleep(waitShownAfter - waitPoll/2)
		synctest.Wait()
		if written() != "" {
			t.Errorf("it was shown at once: %q", written())
		}
		time.Sleep(2*time.Second + waitPoll)
		synctest.Wait()
		shown := written()
		if !strings.Contains(shown, eraseLine+"waiting for the Lease (2s)") || !strings.HasSuffix(shown, "(4s)") {
			t.Errorf("got %q", shown)
		}
		done()
		if got := written(); got != shown+eraseLine {
			t.Errorf("it was not erased: %q", got)
		}
		time.Sleep(time.Minute)
		p.Close()
		synctest.Wait()
		if got := written(); got != shown+eraseLine {
			t.Errorf("more was written: %q", got)
		}
	})
}
