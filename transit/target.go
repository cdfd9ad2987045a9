package transit

import "time"

// DefaultSettle is the age from which a backup of Vault need not have a key version that
// stored ciphertext uses. With a run each night, the target is the version that was
// created two nights ago, so one failed nightly snapshot does no harm.
const DefaultSettle = 44 * time.Hour

// Target is the key version that stored ciphertext should have.
type Target struct {
	Version int
	// Unsettled is when backups of Vault that have the version are old enough. Until
	// then, a restore of an older backup loses the version. It is zero if the version is
	// settled already.
	Unsettled time.Time
}

// TargetVersion returns the version that stored ciphertext should have: the newest one
// that is older than settle. So ciphertext decrypts with every backup of Vault that is not
// older than settle. If no version is that old, it is the oldest one that Vault lists. It
// is never below min_encryption_version and min_decryption_version. With a settle of 0
// or less it is the newest.
//
// The time should be that of Vault, KeyInfo.ReadAt. Vault rounds creation times to
// seconds, so a version counts as one second younger than it appears.
func TargetVersion(info KeyInfo, settle time.Duration, now time.Time) Target {
	if settle <= 0 || len(info.Created) == 0 {
		return Target{Version: info.Latest}
	}
	lowest := max(info.MinDecryptionVersion, info.MinEncryptionVersion, 1)
	target, oldest := 0, info.Latest
	for version, created := range info.Created {
		if version > info.Latest || version < info.MinDecryptionVersion {
			continue
		}
		oldest = min(oldest, version)
		if settledAt(created, settle).Before(now) {
			target = max(target, version)
		}
	}
	if target == 0 {
		target = oldest
	}
	t := Target{Version: min(max(target, lowest), info.Latest)}
	created, ok := info.Created[t.Version]
	if !ok {
		created = now
	}
	if at := settledAt(created, settle); !at.Before(now) {
		t.Unsettled = at
	}
	return t
}

func settledAt(created time.Time, settle time.Duration) time.Time {
	return created.Add(time.Second + settle)
}
