package rotator

// step is a moment of a run at which it may be killed. Tests do it: nothing is
// to be lost at any of them.
type step string

const (
	stepLeased     step = "the Lease was taken"
	stepListed     step = "a page was listed"
	stepPlanned    step = "everything was counted"
	stepRotating   step = "a key is about to be rotated"
	stepRotated    step = "a key was rotated"
	stepRewrapping step = "a batch is about to be rewrapped"
	stepRewrapped  step = "a batch was rewrapped"
	stepWriting    step = "a Secret is about to be written"
	stepWritten    step = "a Secret was written"
	stepVerified   step = "everything was looked at again"
	stepRetiring   step = "a key is about to be retired"
	stepRetired    step = "a key was retired"
	stepTrimming   step = "a key is about to be trimmed"
	stepTrimmed    step = "a key was trimmed"
	stepSaving     step = "the summary is about to be written"
	stepSaved      step = "the summary was written"
	stepTold       step = "the Events were made"
)

// hook is called at each step, from many goroutines; nil but in tests.
type hook func(step)

func (h hook) at(s step) {
	if h != nil {
		h(s)
	}
}
