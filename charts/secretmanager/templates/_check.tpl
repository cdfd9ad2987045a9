{{- /* Values that contradict each other, as a JSON list of messages. */ -}}
{{- define "secretmanager.valueProblems" -}}
{{- $problems := list -}}
{{- if not (or .Values.provider.enabled .Values.rotator.enabled) -}}
{{- $problems = append $problems "provider.enabled and rotator.enabled are both false, so there is nothing to install. Set one of them." -}}
{{- end -}}
{{- if not .Values.vault.insecureHTTP -}}
{{- $addresses := list -}}
{{- if not .Values.vault.existingConfigMap -}}
{{- range .Values.vault.addresses -}}
{{- $addresses = append $addresses (list "vault.addresses" .) -}}
{{- else -}}
{{- $addresses = append $addresses (list "vault.address" .Values.vault.address) -}}
{{- end -}}
{{- end -}}
{{- range .Values.provider.allowedAddresses -}}
{{- $addresses = append $addresses (list "provider.allowedAddresses" .) -}}
{{- end -}}
{{- range $addresses -}}
{{- /* The same rule as transit.PlainHTTP. */ -}}
{{- if and (hasPrefix "http://" (index . 1)) (not (regexMatch "^http://(localhost|127\\.[0-9]+\\.[0-9]+\\.[0-9]+|\\[::1\\])(:[0-9]*)?(/.*)?$" (index . 1))) -}}
{{- $problems = append $problems (printf "%s is %s: over plain HTTP everyone on the network can read tokens and plaintext. Use https, or set vault.insecureHTTP: true, for development only." (index . 0) (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.vault.ca.secret .Values.vault.ca.configMap -}}
{{- $problems = append $problems "vault.ca.secret and vault.ca.configMap are both set, but the certificates come from one of them. Remove the other." -}}
{{- end -}}
{{- range .Values.provider.inlineAuth -}}
{{- if not (has (trimSuffix "/" .) (concat (list $.Values.vault.authMount) $.Values.provider.allowedAuthMounts)) -}}
{{- $problems = append $problems (printf "provider.inlineAuth has %s, which no SecretProviderClass may set. Set it in vault.authMount or provider.allowedAuthMounts too." .) -}}
{{- end -}}
{{- end -}}
{{- $accounts := dict -}}
{{- range $component := list "provider" "rotator" "exporter" -}}
{{- $values := index $.Values $component -}}
{{- if and $values.enabled (or (ne $component "exporter") $.Values.rotator.enabled) -}}
{{- if not (or $values.serviceAccount.create $values.serviceAccount.name) -}}
{{- $problems = append $problems (printf "%s.serviceAccount.create is false and %[1]s.serviceAccount.name is empty: the service account default would get the rights of the %[1]s. Set the name." $component) -}}
{{- end -}}
{{- $name := include "secretmanager.serviceAccountName" (list $ $component) -}}
{{- with get $accounts $name -}}
{{- $problems = append $problems (printf "%s.serviceAccount.name and %s.serviceAccount.name are both %s: each component would get the rights of the other. Choose different names." . $component $name) -}}
{{- end -}}
{{- $_ := set $accounts $name $component -}}
{{- end -}}
{{- end -}}
{{- with .Values.provider -}}
{{- $surge := (.updateStrategy.rollingUpdate | default dict).maxSurge | default 0 | toString | trimSuffix "%" -}}
{{- if and .hostNetwork (eq .updateStrategy.type "RollingUpdate") (ne $surge "0") -}}
{{- $problems = append $problems "provider.hostNetwork needs provider.updateStrategy.rollingUpdate {maxSurge: 0, maxUnavailable: 1}: on one node, two pods with hostNetwork cannot listen on the same ports." -}}
{{- end -}}
{{- if eq (int .healthPort) (int .metricsPort) -}}
{{- $problems = append $problems (printf "provider.healthPort and provider.metricsPort are both %d. Choose different ports." (int .healthPort)) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "provider" "rotator" -}}
{{- range $list, $key := dict "extraEnv" "name" "extraVolumes" "name" "extraVolumeMounts" "mountPath" -}}
{{- $entries := include "secretmanager.pluck" (list $key (index $.Values $component $list)) | fromJsonArray -}}
{{- if ne (len $entries) (len (uniq $entries)) -}}
{{- $problems = append $problems (printf "%s.%s has two entries with the same %s: %s. Remove one of them." $component $list $key (join ", " $entries)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems = concat $problems (include "secretmanager.rotatorProblems" .Values.rotator | fromJsonArray) -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- $problems = append $problems "monitoring.podMonitor and monitoring.serviceMonitor are both enabled: Prometheus would scrape and count everything twice. Choose one of them." -}}
{{- end -}}
{{- if and .Values.monitoring.prometheusRule.enabled (not (and .Values.exporter.enabled .Values.rotator.enabled)) -}}
{{- $problems = append $problems "monitoring.prometheusRule.enabled needs exporter.enabled and rotator.enabled: without them the alert that no metrics of the rotation exist would always fire." -}}
{{- end -}}
{{- $limit := ((.Values.provider.resources).limits).memory | default "" | toString -}}
{{- $soft := include "secretmanager.softMemory" . -}}
{{- $cache := include "secretmanager.mebibytes" .Values.provider.republishCache | default "0" -}}
{{- if and $limit (not $soft) -}}
{{- $problems = append $problems (printf "provider.resources.limits.memory is %q, but Go's soft memory limit, which is derived from it, needs a whole number of Mi or Gi, such as 256Mi." $limit) -}}
{{- else if and $soft (lt (int64 $soft) (mul 2 (int64 $cache))) -}}
{{- $problems = append $problems (printf "provider.republishCache is %s and provider.resources.limits.memory is %s: the provider would run out of memory before its cache is full. Set a limit of at least %dMi, or a smaller cache." (toString .Values.provider.republishCache) $limit (add1 (div (mul 64 (int64 $cache)) 27))) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- /* Values of the rotator that contradict each other, as a JSON list of messages. */ -}}
{{- define "secretmanager.rotatorProblems" -}}
{{- $problems := list -}}
{{- $rotator := . -}}
{{- if and .cluster .namespaces -}}
{{- $problems = append $problems "rotator.cluster is true and rotator.namespaces is not empty: the rotator would have rights in all namespaces and work only in some. Choose one of them." -}}
{{- end -}}
{{- if .retire.enabled -}}
{{- if not .retire.onlyUser -}}
{{- $problems = append $problems "rotator.retire needs rotator.retire.onlyUser: true, the statement that no other cluster or program uses the transit keys: the rotator cannot find that out, and their ciphertext would no longer decrypt." -}}
{{- end -}}
{{- if not (or .cluster .namespaces) -}}
{{- $problems = append $problems "rotator.retire needs rotator.cluster: true: only a rotator that can read all Secrets knows that no Secret needs a version. Set it, or remove rotator.retire." -}}
{{- else if not .cluster -}}
{{- /* The same rule as complete in the rotator: the namespaces of a key must all be listed. */ -}}
{{- range .transitKeys -}}
{{- $unread := list "every namespace" -}}
{{- if contains "=" . -}}
{{- $unread = list -}}
{{- range splitList "," (splitList "=" . | last) -}}
{{- if not (has . $rotator.namespaces) -}}{{- $unread = append $unread (printf "namespace %s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $unread -}}
{{- $problems = append $problems (printf "rotator.retire needs rotator.cluster: true to retire versions of %s: its Secrets may be in %s, and the rotator works only in rotator.namespaces. Set it, or bind the key to these namespaces in rotator.transitKeys: KEY=NAMESPACE,…" . (join ", " $unread)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* A run on some days only may follow the last one after any time. The last three fields of a schedule are days. */ -}}
{{- $gap := regexFind "^[0-9]+h" .maxGap | trimSuffix "h" | int -}}
{{- $days := regexFind "^@(yearly|annually|monthly|weekly)$|([ \t]+[^ \t]+){3}$" (trim .schedule) | trim -}}
{{- if and (regexMatch "[^*? \t]" $days) (le $gap 48) -}}
{{- $problems = append $problems (printf "rotator.retire needs a run every day, and rotator.schedule is %q: after a time without runs that is longer than rotator.maxGap (%s), the waiting time begins again, so nothing would ever be retired. Run it every day, or set rotator.maxGap to more than the longest time between two runs, in hours." .schedule .maxGap) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- /*
Problems of the driver, as a JSON list of messages. Without a cluster, as with `helm template`, lookup finds
nothing, not even kube-system, and the list is empty.
*/ -}}
{{- define "secretmanager.driverProblems" -}}
{{- $problems := list -}}
{{- if and .Values.driver.check .Values.provider.enabled (lookup "v1" "Namespace" "" "kube-system") -}}
{{- $driver := lookup "storage.k8s.io/v1" "CSIDriver" "" "secrets-store.csi.k8s.io" -}}
{{- $required := concat (list .Values.vault.audience) .Values.driver.audiences | uniq -}}
{{- if not $driver -}}
{{- $set := "enableSecretRotation=true,rotationPollInterval=0s" -}}
{{- range $index, $audience := $required -}}
{{- $set = printf "%s,tokenRequests[%d].audience=%s" $set $index $audience -}}
{{- end -}}
{{- $problems = append $problems (printf "The cluster has no CSIDriver secrets-store.csi.k8s.io: the Secrets Store CSI driver is not installed, and no pod can mount a secret.\n  Install it first (docs/install.md):\n  helm install csi-secrets-store secrets-store-csi-driver -n kube-system --repo https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts --set '%s'" $set) -}}
{{- else -}}
{{- /* Operations that add: the driver may have other providers, and tokens for them. */ -}}
{{- $patch := list -}}
{{- $causes := list -}}
{{- $existing := list -}}
{{- range $driver.spec.tokenRequests -}}{{- $existing = append $existing (.audience | default "") -}}{{- end -}}
{{- $missing := list -}}
{{- $requests := list -}}
{{- range $required -}}
{{- if not (has . $existing) -}}
{{- $missing = append $missing (. | quote) -}}
{{- $requests = append $requests (dict "audience" .) -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- $patch = append $patch (dict "op" "test" "path" "/spec/tokenRequests" "value" $driver.spec.tokenRequests) -}}
{{- if $existing -}}
{{- range $requests -}}{{- $patch = append $patch (dict "op" "add" "path" "/spec/tokenRequests/-" "value" .) -}}{{- end -}}
{{- else -}}
{{- $patch = append $patch (dict "op" "add" "path" "/spec/tokenRequests" "value" $requests) -}}
{{- end -}}
{{- $names := list -}}
{{- range $existing -}}{{- $names = append $names (. | quote) -}}{{- end -}}
{{- $causes = append $causes (printf "its tokenRequests lack the audience %s (they have %s), so the kubelet passes no token to log in to Vault with" (join ", " $missing) (join ", " $names | default "none")) -}}
{{- end -}}
{{- if not $driver.spec.requiresRepublish -}}
{{- $causes = append $causes "its requiresRepublish is not true, so running pods would not get new values" -}}
{{- $patch = append $patch (dict "op" "add" "path" "/spec/requiresRepublish" "value" true) -}}
{{- end -}}
{{- if not $driver.spec.podInfoOnMount -}}
{{- $causes = append $causes "its podInfoOnMount is not true, so the provider would not know the pod of a volume" -}}
{{- $patch = append $patch (dict "op" "add" "path" "/spec/podInfoOnMount" "value" true) -}}
{{- end -}}
{{- if $causes -}}
{{- $problems = append $problems (printf "The CSIDriver secrets-store.csi.k8s.io is not configured for SecretManager: %s.\n  Set tokenRequests and enableSecretRotation in the values of the driver's chart (docs/install.md), or patch it now:\n  kubectl patch csidriver secrets-store.csi.k8s.io --type=json -p '%s'" (join "; " $causes) (toJson $patch)) -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- $problems = append $problems "To skip this check and configure the driver later: --set driver.check=false" -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}
