# The variables; give them by -var, or in terraform.tfvars, which git does not need to know.
#
#   terraform apply -var project=PROJECT -var clips_bucket=my-clips

variable "project" {
  description = "Id of the project, such as video-features-prod."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of buckets, registry, scheduler and workers; the clips should be there too."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region, such as europe-west1, and no zone."
  }
}

variable "clips_bucket" {
  description = "Name of the bucket with the clips. It is there already, and is only read."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.clips_bucket))
    error_message = "The name alone, without gs:// and without a path."
  }
}

variable "prefix" {
  description = "What the names of the new buckets begin with; default: the project's id."
  type        = string
  default     = null

  validation {
    condition     = var.prefix == null || can(regex("^[a-z0-9][a-z0-9-]{1,40}$", var.prefix))
    error_message = "2 to 41 lower-case letters, digits and hyphens."
  }
}

variable "submitters" {
  description = "Who may submit jobs, such as user:ann@example.com or group:video@example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for who in var.submitters : can(regex("^(user|group|serviceAccount):.+@.+$", who))])
    error_message = "Each is user:, group: or serviceAccount: with an address."
  }
}

variable "trainers" {
  description = "Who may train and publish models, such as user:ann@example.com or group:video@example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for who in var.trainers : can(regex("^(user|group|serviceAccount):.+@.+$", who))])
    error_message = "Each is user:, group: or serviceAccount: with an address."
  }
}

variable "kubernetes_namespace" {
  description = "Namespace on GKE whose service accounts (infra/kubernetes) stand for these; null: none."
  type        = string
  default     = null
}

variable "template_uri" {
  description = "gs:// path of the flex template's spec file; null: nothing is scheduled."
  type        = string
  default     = null

  validation {
    condition     = var.template_uri == null || can(regex("^gs://[^/]+/.+[.]json$", var.template_uri))
    error_message = "gs://BUCKET/NAME.json, as `framebank template build` wrote it."
  }
}

variable "worker_image" {
  description = "Image of the workers (target dataflow of infra/docker); needed with template_uri."
  type        = string
  default     = null

  validation {
    condition     = (var.template_uri == null) == (var.worker_image == null)
    error_message = "template_uri and worker_image belong together."
  }
}

variable "schedule" {
  description = "When the extraction starts, in cron's format, UTC."
  type        = string
  default     = "0 2 * * *"

  validation {
    condition     = length(split(" ", var.schedule)) == 5
    error_message = "Five fields: minute, hour, day, month, day of the week."
  }
}

variable "sample" {
  description = "Sampling rule of the scheduled extraction."
  type        = string
  default     = "fps=1"

  validation {
    condition     = can(regex("^(fps=[0-9]+([./][0-9]+)?|uniform=[0-9]+|every=[0-9]+|all|keyframes)$", var.sample))
    error_message = "fps=R, uniform=N, every=K, all or keyframes."
  }
}
